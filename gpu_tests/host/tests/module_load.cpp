// Every form of device code on its own: does the driver load it, and does what it loaded compute? Native binary, PTX or
// SPIR-V, source, the driver's own binary given back to it, and what the stack's toolkit compiles here. And damaged
// code, and code newer than the driver: is it refused with an error?
#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "../data.h"
#include "../test.h"
#include "../toolkit.h"

namespace {

using namespace gt;

constexpr const char *kKernel = "magic";
constexpr std::uint32_t kWords = 1000, kOffset = 3, kGroup = 64;
constexpr std::size_t kLoads = 5;
constexpr double kShare = 0.2;             // of the budget: for loading one form again and again
constexpr double kToolkitSeconds = 120.0;  // a compiler in a small guest
constexpr long kPtxTooNew = 222;           // CUDA_ERROR_UNSUPPORTED_PTX_VERSION
constexpr const char *kNewerThanAny = "99.9";

std::uint32_t rounds(std::uint32_t i, std::uint32_t salt) {
    std::uint32_t word = i ^ mix(salt);
    for (std::uint32_t round = 0; round <= (i & 15u); ++round) word = mix(word + round * 0x9E3779B9u);
    return word;
}

std::uint32_t magic(std::uint32_t i, std::uint32_t salt) {
    const std::uint32_t neighbour = (i & ~(kGroup - 1)) | ((i + 1) & (kGroup - 1));
    return mix(rounds(i, salt) ^ (rounds(neighbour, salt) << 1));
}

std::string label(const CodeTarget &target) {
    const bool plain = target.directory.empty() || target.directory == target.name;
    return plain ? target.name : target.name + "_" + target.directory;
}

/// The same code with other bytes, so that no cache of the driver can answer instead of its compiler.
std::string made_new(const CodeTarget &target, std::string code, std::uint32_t nonce) {
    const std::string comment = "\n// " + std::to_string(nonce) + "\n";
    if (target.name == "source" || target.name == "ptx") return code + comment;
    // The lower half of SPIR-V's third word is the version of whatever made it: it means nothing to a consumer.
    if (target.name == "spirv" && code.size() > 12) std::memcpy(&code[8], &nonce, 2);
    return code;
}

std::string damaged(const CodeTarget &target, std::string code) {
    if (target.name == "source" || target.name == "ptx") return code + "\n} this is no code\n";
    std::fill(code.begin(), code.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(code.size(), 64)), '\0');
    return code;
}

/// The driver does not take the code: not a fault of what it computes.
struct Refused : ApiFailure {
    explicit Refused(const ApiFailure &why) : ApiFailure(why) {}
};

class ModuleLoad {
  public:
    explicit ModuleLoad(Context &context)
        : context_(context), backend_(context.backend), out_(context.backend, kWords, kOffset) {}

    void run() {
        std::map<std::string, std::string> refusals;  // of a form, by its name
        std::map<std::string, std::vector<CodeTarget>> absences;
        std::vector<std::string> forms;
        std::set<std::string> seen;  // forms of which something is at hand
        for (const CodeTarget &target : backend_.targets()) {
            if (!wanted(target.name)) continue;
            if (std::find(forms.begin(), forms.end(), target.name) == forms.end()) forms.push_back(target.name);
            std::string code;
            if (target.form == Form::kSource) {
                code = context_.source(kKernel);
            } else if (!context_.artefact(kKernel, target, code)) {
                absences[target.name].push_back(target);
                continue;
            }
            seen.insert(target.name);
            if (!loads(target, code, refusals[target.name])) continue;
            must_refuse("refuses_damaged_" + label(target), target.form, damaged(target, code));
            if (target.name == "ptx") refuses_newer(target, code);
        }
        for (const std::string &form : forms) {
            if (!seen.count(form)) absent(form, absences[form]);
            // One of a form's targets is enough: an older device code version may be all that an older driver takes.
            const auto refused = refusals.find(form);
            if (refused == refusals.end() || refused->second.empty()) continue;
            const bool loaded = std::find(loaded_.begin(), loaded_.end(), form) != loaded_.end();
            if (loaded) context_.skipped(form + "_others", "refused: " + refused->second);
            else if (form == "ptx" && too_old_) context_.skipped(form, "newer than the driver: " + refused->second);
            else context_.check("loads_" + form, 1, 1, refused->second);
        }
        if (wanted("toolkit")) toolkit();
        if (loaded_.empty() && !at_hand_) throw Inapplicable("no form of device code is at hand for this device");
        if (loaded_.empty() && context_.first_failure().empty()) {
            throw ApiFailure("no form of device code loads", Cause::kBadImage);
        }
        if (!loaded_.empty()) still_works();
    }

  private:
    bool wanted(const std::string &form) const {
        return context_.options.form.empty() || context_.options.form == form;
    }

    /// Why nothing of a form is at hand. Where something is, it is no loss that some of its targets are not.
    void absent(const std::string &form, const std::vector<CodeTarget> &targets) {
        std::string others;
        for (const CodeTarget &target : targets) {
            const Absence absence = context_.absence(kKernel, target);
            if (absence.named) context_.skipped(label(target), absence.why);
            else if (!absence.why.empty()) others = absence.why;
            else if (others.empty()) others = "no artefact came along for " + target.directory;
            else if (others.size() < 200) others += ", " + target.directory;
        }
        if (!others.empty()) context_.skipped(form, others);
    }

    /// Load, launch and check one form several times; the time is that from bytes to a launch that has finished.
    bool loads(const CodeTarget &target, const std::string &code, std::string &refusal) {
        context_.phase(("load " + label(target)).c_str());
        std::vector<double> times;
        Guarded::Bad bad;
        const double started = context_.elapsed();
        std::string returned;
        try {
            do {
                const std::string fresh = made_new(target, code, nonce());
                times.push_back(compute(target.form, fresh, bad, times.empty() ? &returned : nullptr));
            } while (times.size() < kLoads && context_.elapsed() - started < kShare * context_.options.budget);
        } catch (const Inapplicable &e) {
            context_.skipped(label(target), e.what());
            return false;
        } catch (const Refused &e) {
            if (!times.empty()) throw;  // it was taken before
            at_hand_ = true;
            if (e.code == kPtxTooNew) too_old_ = true;
            refusal += (refusal.empty() ? "" : "; ") + label(target) + ": " + e.what();
            return false;
        }
        report(label(target), times.size(), bad);
        if (std::find(loaded_.begin(), loaded_.end(), target.name) == loaded_.end()) {
            context_.metric("load_" + target.name, "s", "lower", times);
            loaded_.push_back(target.name);
        }
        if (target.form == Form::kSource) given_back(returned);
        return true;
    }

    /// One load and launch with a new salt; returns seconds. `binary`: where to put the driver's own binary of it.
    double compute(Form form, const std::string &code, Guarded::Bad &bad, std::string *binary) {
        const std::uint32_t salt = nonce();
        out_.poison_all();
        const double before = monotonic_seconds();
        const Handle module = load(form, code);
        launch(module, salt);
        const double seconds = monotonic_seconds() - before;
        const Guarded::Bad found = out_.verify([&](std::uint32_t i) { return magic(i, salt); });
        bad.payload += found.payload;
        bad.canaries += found.canaries;
        if (binary) {
            try {
                *binary = backend_.binary(module);
            } catch (const Inapplicable &) {
                binary->clear();
            }
        }
        backend_.unload(module);
        return seconds;
    }

    Handle load(Form form, const std::string &code) {
        try {
            return backend_.module(form, code);
        } catch (const ApiFailure &e) {
            throw Refused(e);
        }
    }

    void launch(Handle module, std::uint32_t salt) {
        backend_.launch(backend_.kernel(module, "gt_magic"), kWords, kGroup,
                        {Arg::u32(kWords), Arg::mem(out_.buffer()), Arg::u32(out_.first()), Arg::u32(salt)});
    }

    void report(const std::string &name, std::size_t loads, const Guarded::Bad &bad) {
        context_.check("magic_" + name, loads * kWords, bad.payload);
        context_.check("canaries_" + name, loads * 2 * kCanaryWords, bad.canaries);
    }

    /// What a driver made of source, it must take again as a binary: that is how programs keep what was compiled once.
    void given_back(const std::string &binary) {
        if (binary.empty()) {
            context_.skipped("binary_given_back", "the API gives no binary of a module");
            return;
        }
        context_.phase("load the driver's own binary");
        Guarded::Bad bad;
        const double seconds = compute(Form::kBinary, binary, bad, nullptr);
        report("binary_given_back", 1, bad);
        context_.metric("load_given_back", "s", "lower", {seconds});
        CodeTarget target;
        target.name = "binary";
        must_refuse("refuses_damaged_binary_given_back", Form::kBinary, damaged(target, binary));
    }

    /// Loading must end in an error of the API; nothing is launched.
    void must_refuse(const std::string &name, Form form, const std::string &code) {
        context_.phase(name.c_str());
        try {
            const Handle module = backend_.module(form, code);
            backend_.unload(module);
        } catch (const ApiFailure &e) {
            const bool lost = e.cause == Cause::kDeviceLost || e.cause == Cause::kNoDevice;
            context_.check(name, 1, lost, lost ? e.what() : "");
            return;
        }
        context_.check(name, 1, 1, "the driver took it");
    }

    void refuses_newer(const CodeTarget &target, std::string code) {
        const std::size_t begin = code.find(".version");
        const std::size_t end = begin == std::string::npos ? begin : code.find('\n', begin);
        if (end == std::string::npos) throw OwnError("the PTX of " + target.directory + " tells no version");
        code.replace(begin, end - begin, std::string(".version ") + kNewerThanAny);
        must_refuse("refuses_newer_" + label(target), target.form, code);
    }

    /// Compile here with what the stack brought along, and load that.
    void toolkit() {
        const std::vector<CodeTarget> targets = backend_.targets();
        const auto binary = std::find_if(targets.begin(), targets.end(), [](const CodeTarget &target) {
            return target.form == Form::kBinary && *toolkit_name(target) != '\0';
        });
        if (binary == targets.end()) {
            context_.skipped("toolkit", "no native target of this device is known");
            return;
        }
        const std::string program = toolkit_program(*binary);
        if (program.empty()) {
            context_.skipped("toolkit", std::string(toolkit_name(*binary)) + " is not installed here");
            return;
        }
        const std::string known = backend_.properties().architecture;
        const std::string architecture = binary->extension == "bin" || known.empty() ? binary->directory : known;
        at_hand_ = true;
        context_.phase("compile with the toolkit");
        try {
            const double before = monotonic_seconds();
            const std::string code =
                toolkit_compile(program, *binary, architecture, context_.source(kKernel), kToolkitSeconds);
            const double compiling = monotonic_seconds() - before;
            context_.phase("load toolkit");
            Guarded::Bad bad;
            const double loading = compute(Form::kBinary, code, bad, nullptr);
            report("toolkit", 1, bad);
            context_.metric("compile_toolkit", "s", "lower", {compiling});
            context_.metric("load_toolkit", "s", "lower", {loading});
            loaded_.push_back("toolkit");
        } catch (const ApiFailure &e) {
            context_.check("loads_toolkit", 1, 1, e.what());
        }
    }

    /// After everything that was refused, the device must load and compute as before.
    void still_works() {
        if (loaded_.front() == "toolkit") return;
        context_.phase("after the refusals");
        const std::uint32_t salt = nonce();
        out_.poison_all();
        launch(context_.module(kKernel), salt);
        report("after_refusals", 1, out_.verify([&](std::uint32_t i) { return magic(i, salt); }));
    }

    /// Another number with every call and in every process.
    std::uint32_t nonce() {
        std::uint64_t now = 0;
        const double seconds = monotonic_seconds();
        std::memcpy(&now, &seconds, sizeof now);
        return nonce_ = mix(nonce_ + static_cast<std::uint32_t>(now ^ (now >> 32)) + 1u);
    }

    Context &context_;
    Backend &backend_;
    Guarded out_;
    std::vector<std::string> loaded_;  // forms
    bool at_hand_ = false, too_old_ = false;
    std::uint32_t nonce_ = 0;
};

void module_load(Context &context) {
    context.open_device();
    ModuleLoad(context).run();
}

GT_TEST("module_load", module_load);

}  // namespace
