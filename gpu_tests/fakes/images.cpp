#include "images.h"

#include <elf.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstring>

#include "faults.h"

namespace gt_sim {
namespace {

constexpr std::uint16_t kMachineCuda = 190, kMachineAmd = 224;  // EM_CUDA, EM_AMDGPU
constexpr std::uint32_t kFatbinMagic = 0xBA55ED50u;
constexpr std::uint64_t kMostBytes = 256u << 20;

struct FatbinHeader {
    std::uint32_t magic;
    std::uint16_t version, header_bytes;
    std::uint64_t bytes;
};

/// The whole of an ELF file from its first byte, or nothing when its header makes no sense.
bool whole_elf(const void *image, std::uint16_t machine, Elf64_Ehdr *header, std::string *content) {
    std::memcpy(header, image, sizeof *header);
    if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_ident[EI_CLASS] != ELFCLASS64) return false;
    if (header->e_machine != machine) return false;
    const std::uint64_t end = std::max<std::uint64_t>(
        {sizeof *header, header->e_shoff + std::uint64_t{header->e_shnum} * header->e_shentsize,
         header->e_phoff + std::uint64_t{header->e_phnum} * header->e_phentsize});
    if (end > kMostBytes) return false;
    content->assign(static_cast<const char *>(image), end);
    return true;
}

/// The number behind a word of PTX, without its dot: `.version 7.8` gives 78, `.target sm_90` 90.
int directive(const std::string &text, const std::string &word) {
    const std::size_t at = text.find(word);
    if (at == std::string::npos) return -1;
    int value = 0;
    std::size_t i = at + word.size();
    if (!std::isdigit(static_cast<unsigned char>(text[i]))) return -1;
    for (; std::isdigit(static_cast<unsigned char>(text[i])) || text[i] == '.'; ++i) {
        if (text[i] != '.') value = value * 10 + (text[i] - '0');
    }
    return value;
}

Status take_cuda(const void *image, int capability, int isa, Module *module) {
    if (!image) return kInvalidValue;
    const char *first = static_cast<const char *>(image);
    FatbinHeader fatbin{};
    if (std::memcmp(first, ELFMAG, SELFMAG) == 0) {
        Elf64_Ehdr header;
        if (!whole_elf(image, kMachineCuda, &header, &module->content)) return kInvalidImage;
        // The architecture lies in the flags' lowest byte, and since ABI version 8 in the byte above it.
        const int shift = header.e_ident[EI_ABIVERSION] >= 8 ? 8 : 0;
        const int made_for = static_cast<int>(header.e_flags >> shift & 0xff);
        const bool fits = made_for / 10 == capability / 10 && made_for <= capability;
        return fits ? kSuccess : kNoBinaryForGpu;
    }
    std::memcpy(&fatbin.magic, first, sizeof fatbin.magic);
    if (fatbin.magic == kFatbinMagic) {
        std::memcpy(&fatbin, first, sizeof fatbin);
        if (fatbin.bytes > kMostBytes) return kInvalidImage;
        module->content.assign(first, fatbin.header_bytes + fatbin.bytes);
        return kSuccess;
    }
    module->text = true;
    module->content = std::string(first, ::strnlen(first, kMostBytes));
    const int version = directive(module->content, ".version "), target = directive(module->content, ".target sm_");
    if (version < 0 && target < 0) return kInvalidImage;
    if (version < 0 || target < 0) return kInvalidPtx;
    if (version > isa) return kUnsupportedPtxVersion;
    if (target > capability) return kInvalidPtx;
    return well_nested(module->content) ? kSuccess : kInvalidPtx;
}

/// A driver that looks at nothing takes what it should refuse.
Status unless_blind(Status status) {
    return gt_fake::is("accepts_damaged") ? kSuccess : status;
}

Status take_amd(const void *image, unsigned machine, Module *module) {
    if (!image) return kInvalidValue;
    Elf64_Ehdr header;
    if (std::memcmp(image, ELFMAG, SELFMAG) != 0) return kInvalidImage;
    if (!whole_elf(image, kMachineAmd, &header, &module->content)) return kInvalidImage;
    return (header.e_flags & 0xff) == machine ? kSuccess : kNoBinaryForGpu;
}

}  // namespace

bool Module::has(const std::string &kernel) const {
    if (text) {
        const std::string entry = ".entry " + kernel;
        for (std::size_t at = content.find(entry); at != std::string::npos; at = content.find(entry, at + 1)) {
            const unsigned char next = static_cast<unsigned char>(content[at + entry.size()]);
            if (!std::isalnum(next) && next != '_') return true;
        }
        return false;
    }
    // CUDA: the section .text.NAME; AMD: the symbol NAME.kd. Both are strings that end with a zero byte.
    const std::string section(".text." + kernel + '\0', kernel.size() + 7), symbol('\0' + kernel + ".kd");
    return content.find(section) != std::string::npos || content.find(symbol + '\0') != std::string::npos;
}

bool well_nested(const std::string &text) {
    int depth = 0;
    for (const char c : text) {
        if (c == '{') ++depth;
        if (c == '}' && --depth < 0) return false;
    }
    return depth == 0;
}

Status load_cuda(const void *image, int capability, int isa, Module *module) {
    return unless_blind(take_cuda(image, capability, isa, module));
}

Status load_amd(const void *image, unsigned machine, Module *module) {
    return unless_blind(take_amd(image, machine, module));
}

bool compiles(const std::string &source, std::string *log) {
    if (gt_fake::is("build_error")) return *log = "error: as told", false;
    if (kernels_in(source).empty()) return *log = "error: no kernel in this source", false;
    if (well_nested(source) || gt_fake::is("accepts_damaged")) return true;
    return *log = "error: extraneous brace", false;
}

std::vector<std::string> kernels_in(const std::string &source) {
    const auto part_of_word = [&](std::size_t at) {
        return at < source.size() && (std::isalnum(static_cast<unsigned char>(source[at])) || source[at] == '_');
    };
    std::vector<std::string> names;
    for (const auto &[name, kernel] : kernels()) {
        for (std::size_t at = source.find(name); at != std::string::npos; at = source.find(name, at + 1)) {
            if (part_of_word(at - 1) || part_of_word(at + name.size())) continue;
            names.push_back(name);
            break;
        }
    }
    return names;
}

std::string ptx_of(const std::vector<std::string> &names, int capability, int isa) {
    char text[160];
    std::snprintf(text, sizeof text, ".version %d.%d\n.target sm_%d\n.address_size 64\n", isa / 10, isa % 10,
                  capability);
    std::string ptx = text;
    for (const std::string &name : names) ptx += "\n.visible .entry " + name + "()\n{\n\tret;\n}\n";
    return ptx;
}

std::string amd_object_of(const std::vector<std::string> &names, unsigned machine) {
    std::string strings(1, '\0');
    for (const std::string &name : names) strings += name + ".kd" + '\0';
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_machine = kMachineAmd;
    header.e_flags = machine;
    header.e_shentsize = sizeof(Elf64_Shdr);
    strings.resize((strings.size() + 7) / 8 * 8, '\0');
    header.e_shoff = sizeof header + strings.size();
    return std::string(reinterpret_cast<const char *>(&header), sizeof header) + strings;
}

}  // namespace gt_sim
