#include "ze_images.h"

#include <elf.h>

#include <cstring>

namespace gt_sim {
namespace {

constexpr std::uint32_t kSpirvMagic = 0x07230203, kOpEntryPoint = 15, kModelKernel = 6;
constexpr std::uint16_t kMachineIntel = 205;  // EM_INTELGT
constexpr std::uint32_t kNoteProductFamily = 1;

template <class T>
bool at(const std::string &code, std::uint64_t offset, T *out) {
    if (offset > code.size() || code.size() - offset < sizeof *out) return false;
    std::memcpy(out, code.data() + offset, sizeof *out);
    return true;
}

/// A string of an ELF's string table; empty when it lies outside of the file.
std::string text(const std::string &code, std::uint64_t offset) {
    return offset < code.size() ? std::string(code.c_str() + offset) : "";
}

/// The product family that the notes of a section tell; 0 when they tell none.
std::uint32_t family_in(const std::string &code, std::uint64_t offset, std::uint64_t bytes) {
    const std::uint64_t end = offset + bytes;
    Elf64_Nhdr note;
    while (offset + sizeof note <= end && at(code, offset, &note)) {
        const std::uint64_t name = offset + sizeof note;
        const std::uint64_t content = name + (note.n_namesz + 3) / 4 * 4;
        std::uint32_t value = 0;
        const bool product = note.n_type == kNoteProductFamily && text(code, name) == "IntelGT";
        if (product && at(code, content, &value)) return value;
        offset = content + (note.n_descsz + 3) / 4 * 4;
    }
    return 0;
}

}  // namespace

bool kernels_of_spirv(const std::string &code, std::vector<std::string> *names) {
    std::uint32_t magic = 0, first = 0;
    if (code.size() % 4 != 0 || !at(code, 0, &magic) || magic != kSpirvMagic) return false;
    for (std::uint64_t word = 5; word * 4 < code.size(); word += first >> 16) {
        if (!at(code, word * 4, &first) || first >> 16 == 0 || (word + (first >> 16)) * 4 > code.size()) return false;
        std::uint32_t model = 0;
        if ((first & 0xffff) == kOpEntryPoint && at(code, word * 4 + 4, &model) && model == kModelKernel) {
            names->push_back(text(code, word * 4 + 12));
        }
    }
    return !names->empty();
}

bool kernels_of_zebin(const std::string &code, std::uint32_t family, std::vector<std::string> *names) {
    Elf64_Ehdr header;
    Elf64_Shdr strings, section;
    if (!at(code, 0, &header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return false;
    if (header.e_machine != kMachineIntel || header.e_ident[EI_CLASS] != ELFCLASS64) return false;
    if (!at(code, header.e_shoff + std::uint64_t{header.e_shstrndx} * header.e_shentsize, &strings)) return false;
    std::uint32_t made_for = 0;
    const std::string prefix = ".text.";
    for (unsigned i = 0; i < header.e_shnum; ++i) {
        if (!at(code, header.e_shoff + std::uint64_t{i} * header.e_shentsize, &section)) return false;
        const std::string name = text(code, strings.sh_offset + section.sh_name);
        if (name == ".note.intelgt.compat") made_for = family_in(code, section.sh_offset, section.sh_size);
        if (name.compare(0, prefix.size(), prefix) == 0) names->push_back(name.substr(prefix.size()));
    }
    return made_for == family && !names->empty();
}

bool kernels_of_patchtokens(const std::string &code, std::uint32_t core, std::vector<std::string> *names) {
    const std::size_t header = code.find("CTNI");
    std::uint32_t made_for = 0;
    if (code.compare(0, SELFMAG, ELFMAG) != 0 || header == std::string::npos) return false;
    if (!at(code, header + 8, &made_for) || made_for != core) return false;
    const std::string begin("\0gt_", 4);
    for (std::size_t i = code.find(begin, header); i != std::string::npos; i = code.find(begin, i + 1)) {
        names->push_back(text(code, i + 1));
    }
    return !names->empty();
}

std::string zebin_of(const std::vector<std::string> &names, std::uint32_t family) {
    const auto append = [](std::string &to, const auto &value) {
        to.append(reinterpret_cast<const char *>(&value), sizeof value);
    };
    std::string note;
    append(note, Elf64_Nhdr{8, sizeof family, kNoteProductFamily});
    note.append("IntelGT", 8);
    append(note, family);
    std::string strings(1, '\0'), sections;
    const auto section = [&](const std::string &name, std::uint32_t type, std::uint64_t offset, std::uint64_t bytes) {
        Elf64_Shdr header{};
        header.sh_name = static_cast<std::uint32_t>(strings.size());
        header.sh_type = type, header.sh_offset = offset, header.sh_size = bytes;
        strings.append(name.c_str(), name.size() + 1);
        append(sections, header);
    };
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64, header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_type = ET_REL, header.e_machine = kMachineIntel;
    header.e_ehsize = sizeof header, header.e_shentsize = sizeof(Elf64_Shdr);
    section("", SHT_NULL, 0, 0);
    section(".note.intelgt.compat", SHT_NOTE, sizeof header, note.size());
    for (const std::string &name : names) section(".text." + name, SHT_PROGBITS, sizeof header, 0);
    std::string last(".shstrtab");
    section(last, SHT_STRTAB, sizeof header + note.size(), strings.size() + last.size() + 1);
    header.e_shnum = static_cast<std::uint16_t>(sections.size() / sizeof(Elf64_Shdr));
    header.e_shstrndx = static_cast<std::uint16_t>(header.e_shnum - 1);
    header.e_shoff = sizeof header + note.size() + strings.size();
    return std::string(reinterpret_cast<const char *>(&header), sizeof header) + note + strings + sections;
}

}  // namespace gt_sim
