// Another process that a test needs: the runner itself in a part of its own, or a program of the system, with a
// deadline.
//
// A test about crashes, hangs and kills must outlive them. So whoever may come to such an end is a child in a process
// group of its own that dies with its parent; and a child that not even SIGKILL ends is reported and left, never waited
// for.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "test.h"

namespace gt {

/// How a child ended, as far as it did.
struct Ended {
    int exit_status = -1;     // -1: it did not exit by itself
    int signal = 0;           // what ended it instead
    bool timed_out = false;   // its time was over, and it was killed
    bool stuck = false;       // SIGKILL did not end it: it was left behind
    std::string state;        // of a stuck child, as in /proc/PID/stat: D for a sleep that no signal ends
    double seconds = 0.0;     // from its start to its end, or until it was given up

    bool passed() const { return exit_status == 0 && signal == 0 && !timed_out && !stuck; }
};

class Child {
  public:
    /// Start a program. Throws OwnError when there can be no process.
    explicit Child(const std::vector<std::string> &argv);
    /// Kills what still runs.
    ~Child();
    Child(const Child &) = delete;
    Child &operator=(const Child &) = delete;

    /// Wait until a check of this name was reported, or a line of its output begins so; false when the child ended or
    /// `seconds` passed first.
    bool said(const std::string &what, double seconds);
    /// Close its standard input, which a child may take as the word to finish.
    void release();
    void signal(int number);
    /// Wait for its end; when `seconds` have passed, kill its process group.
    const Ended &wait(double seconds);
    /// Kill its process group now.
    const Ended &kill();
    bool running();
    pid_t pid() const { return pid_; }

    /// The values of its records: the text, or number, of `key` in the last intact record `event` (with this name).
    std::string text(const std::string &event, const std::string &key, const std::string &name = "") const;
    double number(const std::string &event, const std::string &key, const std::string &name = "") const;
    /// Its intact records, each a JSON object.
    const std::vector<std::string> &records() const { return records_; }
    /// In one line, how it ended and why, for a check's detail.
    std::string story() const;

  private:
    void drain(double seconds);
    bool reap();
    void take(const std::string &line);
    const std::string *find(const std::string &event, const std::string &name) const;

    pid_t pid_ = -1;
    int in_ = -1, out_ = -1, err_ = -1;
    double started_;
    bool over_ = false;
    Ended ended_;
    std::string partial_, errors_;
    std::vector<std::string> records_, lines_;
};

/// The arguments of this runner, with the options of this process, for `test` with these `KEY=VALUE` arguments.
std::vector<std::string> own_argv(const Options &options, const std::string &test, double budget, double deadline,
                                  const std::vector<std::string> &arguments = {});

/// Run a small vector addition in a new process. It must pass within `seconds`.
Ended canary(const Context &context, double seconds, std::string *story = nullptr);

}  // namespace gt
