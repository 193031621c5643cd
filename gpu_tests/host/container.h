// A rootless podman container that has the runner's devices by CDI, the Container Device Interface.
//
// What it runs in is the machine's own user space, seen read-only: an image would bring its own, and the compute API
// that the stack installed is the subject here. Device files come in by the CDI description alone, as they do for the
// users of a desktop: https://github.com/cncf-tags/container-device-interface.
#pragma once

#include <string>
#include <vector>

namespace gt {

/// The marks of a container that its inside looks for.
struct ContainerMarks {
    std::string cdi;                  // value of KDMATRIX_CDI, set by the CDI description and by nothing else
    std::vector<std::string> nodes;   // device files that the description brings in
};

class Container {
  public:
    /// Looks for podman and prepares a folder and a CDI description. Throws Inapplicable where a rootless container
    /// cannot be had, with the reason. `gpu`: the device files of GPUs are described.
    explicit Container(bool gpu);
    /// Ends what runs in it and removes everything.
    ~Container();
    Container(const Container &) = delete;
    Container &operator=(const Container &) = delete;

    /// The command that runs `argv` in it. `shown` are files and folders of the machine that it sees, at the same
    /// paths, beside /usr, /etc and /opt; `settings` are NAME=VALUE of its environment.
    std::vector<std::string> command(const std::vector<std::string> &argv, const std::vector<std::string> &shown,
                                     const std::vector<std::string> &settings) const;
    const ContainerMarks &marks() const { return marks_; }
    /// The CDI devices that are asked for: our own, and the vendor's where it has described some on this machine.
    const std::vector<std::string> &devices() const { return devices_; }

  private:
    std::vector<std::string> podman() const;
    void make_root() const;
    /// Where the runner is root: to the user who runs the container.
    void give_away(const std::string &path) const;
    void describe(bool gpu);

    std::string podman_, folder_, description_;
    ContainerMarks marks_;
    std::vector<std::string> devices_;
    bool root_;
};

}  // namespace gt
