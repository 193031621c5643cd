// The device sleeps when it is idle, and the machine sleeps until an alarm, while a context is open: its memory must
// keep its words, or the driver say that they are lost, and the next process must compute.
#include <time.h>
#include <unistd.h>

#include <sstream>
#include <string>

#include "../child.h"
#include "../machine.h"
#include "../numbered.h"

namespace {

using namespace gt;

constexpr double kIdle = 10.0;                    // seconds for a device that may sleep to do so
constexpr std::uint32_t kWords = (8u << 20) + 1;  // 64 MiB and a bit
constexpr const char *kAlarm = "+20";             // seconds from now on

/// Seconds that this machine has slept since it was started.
double slept() {
    timespec all{}, awake{};
    ::clock_gettime(CLOCK_BOOTTIME, &all);
    ::clock_gettime(CLOCK_MONOTONIC, &awake);
    return static_cast<double>(all.tv_sec - awake.tv_sec) + 1e-9 * static_cast<double>(all.tv_nsec - awake.tv_nsec);
}

/// A setting of sysfs that is put back when this goes.
class Setting {
  public:
    Setting(const std::string &path, const std::string &old) : path_(path), old_(old) {}
    ~Setting() { write_word(path_, old_); }
    Setting(const Setting &) = delete;
    Setting &operator=(const Setting &) = delete;

  private:
    std::string path_, old_;
};

class Sleep {
  public:
    Sleep(Context &context, const OnPci &device) : context_(context), backend_(context.backend), device_(device) {}

    /// What must be there before the device is opened. Throws Inapplicable when neither sleep is possible.
    void look() {
        runtime_ = reason([&] { must_be_writable(device_.folder + "/power/control", "runtime power management"); });
        const std::string power = device_.root + "/power/";
        machine_ = reason([&] {
            must_be_writable(power + "state", "sleep of the machine");
            std::istringstream states(line_of_file(power + "state"));
            bool memory = false;
            for (std::string word; states >> word;) memory |= word == "mem";
            if (!memory) throw Inapplicable("the kernel cannot suspend to memory here");
            must_be_writable(alarm(), "alarm to be woken by");
            if (!line_of_file(alarm()).empty()) throw Inapplicable("somebody has set the alarm of the clock already");
        });
        if (!runtime_.empty() && !machine_.empty()) throw Inapplicable(runtime_ + "; " + machine_);
    }

    void run() {
        context_.open_device();
        Numbered numbered(context_);
        const Handle memory = backend_.alloc(std::size_t{kWords} * 8);
        const auto survives = [&](const std::string &what, std::uint32_t pattern) {
            context_.phase(("memory after " + what).c_str());
            try {
                const std::uint64_t bad = numbered.wrong(memory, kWords, 0, pattern);
                context_.check(what + "_keeps_memory", kWords, bad, numbered.where());
            } catch (const ApiFailure &e) {
                // An error is an answer that is documented; wrong words without one are not.
                const bool said = e.cause == Cause::kDeviceLost || e.cause == Cause::kLaunch ||
                                  e.cause == Cause::kIllegalAddress;
                context_.check(what + "_reports_the_loss", 1, !said, e.what());
                lost_ = true;
            }
            computes(context_, what + "_next_process_computes");
        };
        numbered.write(memory, kWords, 0, 2);
        context_.check("before", kWords, numbered.wrong(memory, kWords, 0, 2), numbered.where());
        if (runtime_.empty()) {
            runtime();
            survives("runtime", 2);
        } else {
            context_.skipped("runtime", runtime_);
        }
        if (!machine_.empty() || lost_) {
            context_.skipped("machine", lost_ ? "the context was lost before" : machine_);
            return;
        }
        numbered.write(memory, kWords, 0, 3);
        if (machine()) survives("machine", 3);
        if (!lost_) backend_.free(memory);
    }

  private:
    template <class Look>
    static std::string reason(Look look) {
        try {
            look();
        } catch (const Inapplicable &e) {
            return e.what();
        }
        return "";
    }

    std::string alarm() const { return device_.root + "/class/rtc/rtc0/wakealarm"; }

    /// Let the device sleep when it is idle, and see whether it does while the context is open.
    void runtime() {
        context_.phase("runtime sleep");
        const std::string power = device_.folder + "/power/", old = line_of_file(power + "control");
        const Setting back(power + "control", old.empty() ? "on" : old);
        const std::string trouble = write_word(power + "control", "auto");
        context_.check("runtime_allowed", 1, !trouble.empty(), trouble);
        const double until = monotonic_seconds() + kIdle;
        while (line_of_file(power + "runtime_status") != "suspended" && monotonic_seconds() < until) ::usleep(50000);
        const std::string status = line_of_file(power + "runtime_status");
        if (status != "suspended") {
            const std::string stays = status.empty() ? "awake" : status;
            context_.skipped("runtime sleep", "with an open context the device stays " + stays);
        }
    }

    /// Suspend to memory until the alarm. Returns whether the machine slept.
    bool machine() {
        context_.phase("machine sleeps");
        const std::string power = device_.root + "/power/";
        const std::string alarmed = write_word(alarm(), kAlarm);
        context_.check("machine_alarm", 1, !alarmed.empty(), alarmed);
        if (!alarmed.empty()) return false;  // it would not wake
        const double before = slept();
        const std::string trouble = write_word(power + "state", "mem");
        const double seconds = slept() - before;
        write_word(alarm(), "0");
        std::string how = line_of_file(power + "mem_sleep");
        if (how.empty()) how = "which sleep is not told";
        how += ", for " + std::to_string(seconds) + " s";
        const bool asleep = trouble.empty() && seconds > 0.5;
        context_.check("machine_sleeps", 1, !asleep, trouble.empty() ? how : trouble);
        return asleep;
    }

    Context &context_;
    Backend &backend_;
    OnPci device_;
    std::string runtime_, machine_;
    bool lost_ = false;
};

void suspend(Context &context) {
    if (describes(context)) return;
    Sleep sleep(context, device_on_pci(context));
    sleep.look();
    sleep.run();
}

GT_TEST("suspend", suspend);

}  // namespace
