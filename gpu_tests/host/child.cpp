#include "child.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

namespace gt {
namespace {

constexpr double kGrace = 10.0;          // seconds that a killed process may take to go away
constexpr std::size_t kKept = 4096;      // bytes kept of what a child writes to standard error
constexpr std::size_t kRecords = 4096;   // and records of its standard output
constexpr int kReads = 128;              // at a time, of 8 KiB: more than a pipe holds, and no deadline is missed
constexpr long kCloseRange = 436;        // close_range(2), the same number on every architecture

/// A pipe whose ends no other child inherits.
struct Pipe {
    Pipe() {
        if (::pipe2(end, O_CLOEXEC) != 0) throw OwnError(std::string("no pipe: ") + std::strerror(errno));
    }
    int end[2] = {-1, -1};
};

void close_fd(int &fd) {
    if (fd >= 0) ::close(fd);
    fd = -1;
}

const char *signal_name(int number) {
    switch (number) {
        case SIGSEGV: return "SIGSEGV";
        case SIGBUS: return "SIGBUS";
        case SIGABRT: return "SIGABRT";
        case SIGKILL: return "SIGKILL";
        case SIGTERM: return "SIGTERM";
        case SIGILL: return "SIGILL";
        case SIGFPE: return "SIGFPE";
        case SIGTRAP: return "SIGTRAP";
        default: return "a signal";
    }
}

/// The state letter of a process, the third word of /proc/PID/stat; its name, in parentheses, may hold anything.
std::string process_state(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
    std::string line;
    std::getline(file, line);
    const std::size_t behind = line.rfind(") ");
    return behind == std::string::npos || behind + 2 >= line.size() ? "" : line.substr(behind + 2, 1);
}

/// The raw value of one key of a flat JSON object that this runner wrote; empty when it is not there.
std::string member(const std::string &json, const std::string &key) {
    const std::string mark = '"' + key + "\":";
    const std::size_t at = json.find(mark);
    if (at == std::string::npos) return "";
    const std::size_t begin = at + mark.size();
    if (begin >= json.size()) return "";
    std::size_t end = begin;
    if (json[begin] != '"') {
        while (end < json.size() && json[end] != ',' && json[end] != '}') ++end;
        return json.substr(begin, end - begin);
    }
    std::string out;
    for (end = begin + 1; end < json.size() && json[end] != '"'; ++end) {
        if (json[end] == '\\' && end + 1 < json.size()) ++end;
        out += json[end];
    }
    return out;
}

}  // namespace

Child::Child(const std::vector<std::string> &argv) : started_(monotonic_seconds()) {
    Pipe in, out, err;
    std::vector<char *> words;
    for (const std::string &word : argv) words.push_back(const_cast<char *>(word.c_str()));
    words.push_back(nullptr);
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {
        // Between fork and exec only what is safe in a copy of a process whose other threads are gone.
        ::setpgid(0, 0);
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(127);  // the parent died before the line above
        ::dup2(in.end[0], 0);
        ::dup2(out.end[1], 1);
        ::dup2(err.end[1], 2);
        // Files of drivers would keep their modules busy. The call is newer than the C library that this runs on.
        if (::syscall(kCloseRange, 3u, ~0u, 0u) != 0) {
            for (int fd = 3; fd < 4096; ++fd) ::close(fd);
        }
        ::execvp(words[0], words.data());
        ::_exit(127);
    }
    const int why = errno;
    ::close(in.end[0]);
    ::close(out.end[1]);
    ::close(err.end[1]);
    in_ = in.end[1], out_ = out.end[0], err_ = err.end[0];
    if (pid_ < 0) {
        close_fd(in_), close_fd(out_), close_fd(err_);
        throw OwnError(std::string("no process: ") + std::strerror(why));
    }
    ::setpgid(pid_, pid_);  // whichever of the two comes first
    ::fcntl(out_, F_SETFL, O_NONBLOCK);
    ::fcntl(err_, F_SETFL, O_NONBLOCK);
}

Child::~Child() {
    if (!over_) kill();
    close_fd(in_), close_fd(out_), close_fd(err_);
}

void Child::take(const std::string &line) {
    const std::size_t last = line.rfind(' ');
    if (line.compare(0, 5, "@GT1 ") == 0 && last != std::string::npos && last > 5) {
        const std::string json = line.substr(5, last - 5);
        char crc[16];
        std::snprintf(crc, sizeof crc, "%08x", crc32(json));
        if (line.compare(last + 1, std::string::npos, crc) == 0) {
            if (records_.size() < kRecords) records_.push_back(json);
            return;
        }
    }
    if (lines_.size() < kRecords) lines_.push_back(line);
}

/// Read what the child wrote, for at most `seconds`, and look whether it ended.
void Child::drain(double seconds) {
    pollfd files[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    // The end of a child is seen by asking: its pipes may be held open by children of its own.
    const int wait = static_cast<int>(std::min(std::max(seconds, 0.0), 0.02) * 1e3);
    ::poll(files, 2, wait);
    char buffer[8192];
    ssize_t n;
    for (int turn = 0; turn < kReads && (n = ::read(out_, buffer, sizeof buffer)) > 0; ++turn) {
        partial_.append(buffer, static_cast<std::size_t>(n));
        std::size_t end;
        while ((end = partial_.find('\n')) != std::string::npos) {
            take(partial_.substr(0, end));
            partial_.erase(0, end + 1);
        }
        if (partial_.size() > 1u << 20) partial_.clear();
    }
    for (int turn = 0; turn < kReads && (n = ::read(err_, buffer, sizeof buffer)) > 0; ++turn) {
        errors_.append(buffer, static_cast<std::size_t>(n));
        if (errors_.size() > kKept) errors_.erase(0, errors_.size() - kKept);
    }
    // Both at their end: no reason to look again at once.
    if ((files[0].revents & POLLHUP) && (files[1].revents & POLLHUP)) ::usleep(2000);
}

bool Child::reap() {
    if (over_) return true;
    int status = 0;
    const pid_t done = ::waitpid(pid_, &status, WNOHANG);
    if (done == 0 || (done < 0 && errno == EINTR)) return false;
    over_ = true;
    ended_.seconds = monotonic_seconds() - started_;
    if (done == pid_ && WIFEXITED(status)) ended_.exit_status = WEXITSTATUS(status);
    if (done == pid_ && WIFSIGNALED(status)) ended_.signal = WTERMSIG(status);
    drain(0.0);
    return true;
}

bool Child::running() { return !reap(); }

bool Child::said(const std::string &what, double seconds) {
    const double until = monotonic_seconds() + seconds;
    while (true) {
        const bool over = reap();
        drain(over ? 0.0 : until - monotonic_seconds());
        if (find("check", what)) return true;
        for (const std::string &line : lines_) {
            if (line.compare(0, what.size(), what) == 0) return true;
        }
        if (over || monotonic_seconds() >= until) return false;
    }
}

void Child::release() { close_fd(in_); }

void Child::signal(int number) {
    if (!over_) ::kill(pid_, number);
}

const Ended &Child::wait(double seconds) {
    const double until = monotonic_seconds() + seconds;
    while (!reap()) {
        if (monotonic_seconds() >= until) {
            ended_.timed_out = true;
            return kill();
        }
        drain(until - monotonic_seconds());
    }
    return ended_;
}

const Ended &Child::kill() {
    if (over_) return ended_;
    ::kill(-pid_, SIGKILL);
    const double until = monotonic_seconds() + kGrace;
    while (!reap() && monotonic_seconds() < until) drain(until - monotonic_seconds());
    if (!over_) {
        over_ = true;  // nobody waits for it again
        ended_.stuck = true;
        ended_.state = process_state(pid_);
        ended_.seconds = monotonic_seconds() - started_;
    }
    return ended_;
}

const std::string *Child::find(const std::string &event, const std::string &name) const {
    for (auto record = records_.rbegin(); record != records_.rend(); ++record) {
        if (member(*record, "ev") == event && (name.empty() || member(*record, "name") == name)) return &*record;
    }
    return nullptr;
}

std::string Child::text(const std::string &event, const std::string &key, const std::string &name) const {
    const std::string *record = find(event, name);
    return record ? member(*record, key) : "";
}

double Child::number(const std::string &event, const std::string &key, const std::string &name) const {
    const std::string value = text(event, key, name);
    return value.empty() ? std::nan("") : std::strtod(value.c_str(), nullptr);
}

std::string Child::story() const {
    std::string out;
    if (ended_.stuck) {
        out = "process " + std::to_string(pid_) + " in state " + (ended_.state.empty() ? "unknown" : ended_.state) +
              " did not die of SIGKILL";
    } else if (ended_.timed_out) {
        char text[80];
        std::snprintf(text, sizeof text, "no end within %.1f s", ended_.seconds);
        out = text;
        const std::string phase = this->text("heartbeat", "phase");
        if (!phase.empty()) out += " (in phase '" + phase + "')";
    } else if (ended_.signal) {
        out = std::string("killed by ") + signal_name(ended_.signal) + " (" + std::to_string(ended_.signal) + ")";
    } else {
        out = "exit status " + std::to_string(ended_.exit_status);
    }
    const std::string reason = text("result", "reason");
    if (!reason.empty()) return out + ": " + reason.substr(0, 300);
    if (ended_.exit_status != 0 && !errors_.empty()) {
        std::size_t end = errors_.find_last_not_of('\n');
        const std::size_t begin = errors_.rfind('\n', end);
        out += ": " + errors_.substr(begin == std::string::npos ? 0 : begin + 1, 200);
        while (!out.empty() && out.back() == '\n') out.pop_back();
    }
    return out;
}

std::vector<std::string> own_argv(const Options &options, const std::string &test, double budget, double deadline,
                                  const std::vector<std::string> &arguments) {
    const auto seconds = [](double value) {
        char text[40];
        std::snprintf(text, sizeof text, "%.6g", value);
        return std::string(text);
    };
    // By its name, which then stands in the kernel's messages about it.
    char path[PATH_MAX];
    const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
    if (length <= 0 || length >= PATH_MAX) throw OwnError("the runner does not find itself");
    std::vector<std::string> argv{std::string(path, static_cast<std::size_t>(length)), "run", test};
    const auto add = [&](const char *option, const std::string &value) {
        if (!value.empty()) argv.insert(argv.end(), {option, value});
    };
    add("--backend", options.backend);
    add("--library", options.library);
    add("--device", options.device);
    add("--kernels", options.kernels);
    add("--artefacts", options.artefacts);
    add("--form", options.form);
    add("--budget", seconds(budget));
    add("--deadline", seconds(deadline));
    for (const std::string &argument : arguments) add("--set", argument);
    return argv;
}

Ended canary(const Context &context, double seconds, std::string *story) {
    Child child(own_argv(context.options, "vecadd", 0.01, seconds));
    const Ended ended = child.wait(seconds);
    if (story) *story = child.story();
    return ended;
}

}  // namespace gt
