// The runner's output: one record a line, `@GT1 {json} crc32`, safe on a console that others write to as well.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace gt {

constexpr int kWireSchema = 1;

/// Seconds of the monotonic clock.
double monotonic_seconds();
/// CRC-32 as in zlib and Ethernet (polynomial 0xEDB88320, reflected).
std::uint32_t crc32(const std::string &bytes);

/// Builds one flat JSON object. Numbers that JSON cannot hold (NaN, infinities) become null.
class Record {
  public:
    explicit Record(const char *event);
    Record &text(const char *key, const std::string &value);
    Record &number(const char *key, double value);
    Record &integer(const char *key, std::uint64_t value);
    Record &boolean(const char *key, bool value);
    Record &numbers(const char *key, const std::vector<double> &values);
    std::string json() const { return body_ + "}"; }

  private:
    void key(const char *name);
    std::string body_;
};

/// Writes records, each with a single write(2), and a heartbeat every two seconds from a thread of its own.
class Writer {
  public:
    /// Takes over file descriptor 1 and points it at stderr: what a driver library prints cannot mix with records.
    Writer();
    ~Writer();
    Writer(const Writer &) = delete;
    Writer &operator=(const Writer &) = delete;

    void write(const Record &record);
    /// Write a record that another process of this runner made.
    void relay(const std::string &json);
    void phase(const char *name);
    /// Start heartbeats; when `deadline` seconds (0: none) have passed, end the process with status 124.
    void start_heartbeat(double deadline);
    void stop_heartbeat();

  private:
    void beat(double deadline);

    int fd_;
    double started_;
    std::mutex write_lock_;
    std::mutex state_lock_;
    std::condition_variable wake_;
    bool stopping_ = false;
    std::string phase_ = "start";
    std::thread thread_;
};

}  // namespace gt
