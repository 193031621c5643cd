#include "toolkit.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <vector>

#include "wire.h"

namespace gt {

namespace {

/// Where toolkits lie that do not put themselves on PATH.
constexpr const char *kUsualPlaces[] = {"/usr/local/cuda/bin", "/opt/rocm/bin", "/usr/bin", "/usr/local/bin"};

std::string slurp(const std::string &path) {
    std::ifstream in(path, std::ios::binary);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

/// A directory of its own that is removed with what is in it (no folders).
class Workplace {
  public:
    Workplace() {
        const char *base = std::getenv("TMPDIR");
        std::string pattern = std::string(base && *base ? base : "/tmp") + "/gtrun-toolkit-XXXXXX";
        if (!::mkdtemp(&pattern[0])) throw OwnError("cannot make " + pattern + ": " + std::strerror(errno));
        path_ = pattern;
    }
    ~Workplace() {
        for (const std::string &name : names()) ::unlink((path_ + "/" + name).c_str());
        ::rmdir(path_.c_str());
    }
    Workplace(const Workplace &) = delete;
    Workplace &operator=(const Workplace &) = delete;

    const std::string &path() const { return path_; }
    std::vector<std::string> names() const {
        std::vector<std::string> out;
        DIR *directory = ::opendir(path_.c_str());
        if (!directory) return out;
        while (const dirent *entry = ::readdir(directory)) {
            const std::string name = entry->d_name;
            if (name != "." && name != "..") out.push_back(name);
        }
        ::closedir(directory);
        return out;
    }

  private:
    std::string path_;
};

/// Run a program in `folder`, its output in the file `said` there. Returns what waitpid says, or -1 past the deadline.
int run(const std::vector<std::string> &words, const std::string &folder, double seconds) {
    std::vector<char *> argv;
    for (const std::string &word : words) argv.push_back(const_cast<char *>(word.c_str()));
    argv.push_back(nullptr);
    const std::string said = folder + "/said";
    const pid_t child = ::fork();
    if (child < 0) throw OwnError(std::string("cannot start a process: ") + std::strerror(errno));
    if (child == 0) {
        // Nothing here but calls that are safe in the child of a process with threads.
        ::setpgid(0, 0);
        const int out = ::open(said.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        const int in = ::open("/dev/null", O_RDONLY);
        if (out < 0 || in < 0 || ::dup2(in, 0) < 0 || ::dup2(out, 1) < 0 || ::dup2(out, 2) < 0) ::_exit(126);
        if (::chdir(folder.c_str()) != 0) ::_exit(126);
        ::execv(argv[0], argv.data());
        ::_exit(127);
    }
    const double deadline = monotonic_seconds() + seconds;
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
        if (monotonic_seconds() > deadline) {
            ::kill(-child, SIGKILL);
            ::kill(child, SIGKILL);
            ::waitpid(child, &status, 0);
            return -1;
        }
        ::usleep(20000);
    }
    return status;
}

/// The first line that speaks of an error, else the last one.
std::string telling_line(const std::string &text) {
    std::istringstream lines(text);
    std::string line, last;
    while (std::getline(lines, line)) {
        if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
        if (line.find("error") != std::string::npos) return line.substr(0, 300);
        last = line;
    }
    return last.substr(0, 300);
}

}  // namespace

const char *toolkit_name(const CodeTarget &target) {
    if (target.extension == "cubin") return "nvcc";
    if (target.extension == "hsaco") return "hipcc";
    if (target.extension == "bin") return "ocloc";
    return "";
}

std::string toolkit_program(const CodeTarget &target) {
    const std::string name = toolkit_name(target);
    if (name.empty()) return "";
    std::vector<std::string> folders;
    std::istringstream path(std::getenv("PATH") ? std::getenv("PATH") : "");
    for (std::string folder; std::getline(path, folder, ':');) folders.push_back(folder);
    folders.insert(folders.end(), std::begin(kUsualPlaces), std::end(kUsualPlaces));
    for (const std::string &folder : folders) {
        const std::string program = folder + "/" + name;
        if (folder.compare(0, 1, "/") == 0 && ::access(program.c_str(), X_OK) == 0) return program;
    }
    return "";
}

std::string toolkit_compile(const std::string &program, const CodeTarget &target, const std::string &architecture,
                            const std::string &source, double seconds) {
    const Workplace work;
    const std::string name = toolkit_name(target);
    const char *file = name == "ocloc" ? "code.cl" : "code.cu";
    std::ofstream(work.path() + "/" + file, std::ios::binary) << source;
    std::vector<std::string> words;
    if (name == "nvcc") {
        words = {program, "-cubin", "-arch=" + architecture, "-o", "code.bin", file};
    } else if (name == "hipcc") {
        // Where nvcc is on PATH as well, hipcc would call that.
        ::setenv("HIP_PLATFORM", "amd", 0);
        words = {program, "--genco", "--offload-arch=" + architecture, "-x", "hip", "-o", "code.bin", file};
    } else {
        words = {program, "compile", "-file", file, "-device", architecture, "-options", "-cl-std=CL1.2",
                 "-output", "code"};
    }
    const int status = run(words, work.path(), seconds);
    const std::string said = telling_line(slurp(work.path() + "/said"));
    if (status == -1) {
        throw ApiFailure(name + " did not finish within " + std::to_string(static_cast<int>(seconds)) + " s");
    }
    if (!WIFEXITED(status)) {
        throw ApiFailure(name + " was ended by signal " + std::to_string(WTERMSIG(status)) + ": " + said);
    }
    if (WEXITSTATUS(status) != 0) {
        throw ApiFailure(name + " returned " + std::to_string(WEXITSTATUS(status)) + ": " + said);
    }
    // ocloc puts the family of the device into the name.
    const std::vector<std::string> made = work.names();
    const auto found = std::find_if(made.begin(), made.end(), [](const std::string &one) {
        return one.size() > 4 && one.compare(one.size() - 4, 4, ".bin") == 0;
    });
    const std::string code = found == made.end() ? "" : slurp(work.path() + "/" + *found);
    if (code.empty()) throw ApiFailure(name + " made nothing: " + said);
    return code;
}

}  // namespace gt
