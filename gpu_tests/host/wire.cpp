#include "wire.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>

namespace gt {

namespace {

constexpr double kHeartbeatSeconds = 2.0;
constexpr int kExitDeadline = 124;

std::string quoted(const std::string &value) {
    // Driver strings are bytes of unknown encoding: everything beyond printable ASCII is escaped as Latin-1.
    std::string out = "\"";
    for (unsigned char c : value) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += static_cast<char>(c);
        } else if (c < 0x20 || c >= 0x7F) {
            char escape[8];
            std::snprintf(escape, sizeof escape, "\\u%04x", c);
            out += escape;
        } else {
            out += static_cast<char>(c);
        }
    }
    return out + '"';
}

std::string formatted(double value) {
    if (!std::isfinite(value)) return "null";
    char text[40];
    std::snprintf(text, sizeof text, "%.9g", value);
    return text;
}

}  // namespace

double monotonic_seconds() {
    using namespace std::chrono;
    return duration<double>(steady_clock::now().time_since_epoch()).count();
}

std::uint32_t crc32(const std::string &bytes) {
    static const std::array<std::uint32_t, 256> table = [] {
        std::array<std::uint32_t, 256> t{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t c = i;
            for (int bit = 0; bit < 8; ++bit) c = (c & 1u) ? 0xEDB88320u ^ (c >> 1) : c >> 1;
            t[i] = c;
        }
        return t;
    }();
    std::uint32_t crc = 0xFFFFFFFFu;
    for (unsigned char byte : bytes) crc = table[(crc ^ byte) & 0xFFu] ^ (crc >> 8);
    return crc ^ 0xFFFFFFFFu;
}

Record::Record(const char *event) : body_("{\"ev\":" + quoted(event)) {}

void Record::key(const char *name) { body_ += ',' + quoted(name) + ':'; }

Record &Record::text(const char *name, const std::string &value) {
    key(name);
    body_ += quoted(value);
    return *this;
}

Record &Record::number(const char *name, double value) {
    key(name);
    body_ += formatted(value);
    return *this;
}

Record &Record::integer(const char *name, std::uint64_t value) {
    key(name);
    body_ += std::to_string(value);
    return *this;
}

Record &Record::boolean(const char *name, bool value) {
    key(name);
    body_ += value ? "true" : "false";
    return *this;
}

Record &Record::numbers(const char *name, const std::vector<double> &values) {
    key(name);
    body_ += '[';
    for (std::size_t i = 0; i < values.size(); ++i) body_ += (i ? "," : "") + formatted(values[i]);
    body_ += ']';
    return *this;
}

Writer::Writer() : fd_(::dup(1)), started_(monotonic_seconds()) { ::dup2(2, 1); }

Writer::~Writer() {
    stop_heartbeat();
    ::close(fd_);
}

void Writer::write(const Record &record) { relay(record.json()); }

void Writer::relay(const std::string &json) {
    char crc[16];
    std::snprintf(crc, sizeof crc, " %08x\n", crc32(json));
    const std::string line = "@GT1 " + json + crc;
    std::lock_guard<std::mutex> hold(write_lock_);
    std::size_t done = 0;
    while (done < line.size()) {
        const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return;  // nobody reads any more; the exit status still tells
        done += static_cast<std::size_t>(n);
    }
}

void Writer::phase(const char *name) {
    std::lock_guard<std::mutex> hold(state_lock_);
    phase_ = name;
}

void Writer::start_heartbeat(double deadline) {
    thread_ = std::thread([this, deadline] { beat(deadline); });
}

void Writer::stop_heartbeat() {
    {
        std::lock_guard<std::mutex> hold(state_lock_);
        stopping_ = true;
    }
    wake_.notify_all();
    if (thread_.joinable()) thread_.join();
}

void Writer::beat(double deadline) {
    std::unique_lock<std::mutex> hold(state_lock_);
    while (!wake_.wait_for(hold, std::chrono::duration<double>(kHeartbeatSeconds), [this] { return stopping_; })) {
        const double seconds = monotonic_seconds() - started_;
        Record record("heartbeat");
        record.number("secs", seconds).text("phase", phase_);
        hold.unlock();
        write(record);
        // A hung driver call cannot be interrupted, and nobody may be left to kill this process.
        if (deadline > 0.0 && seconds > deadline) ::_exit(kExitDeadline);
        hold.lock();
    }
}

}  // namespace gt
