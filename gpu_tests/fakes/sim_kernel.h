// The kernels of kernels/*.inc as the simulated GPU runs them: by name, with their arguments' sizes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <tuple>
#include <utility>

namespace gt_sim {

struct Group;
/// Make the next item of the group the one that runs here; false when all have been started.
bool next_item(Group &group);

using Slot = std::uint64_t;  // one argument, in its low bytes

struct Kernel {
    const char *name = nullptr;
    void (*items)(Group &group, const Slot *arguments) = nullptr;  // run items until none is left
    std::size_t arguments = 0;
    const std::size_t *sizes = nullptr;  // bytes of each argument
};

template <auto F>
struct KernelOf;

template <class... A, void (*F)(A...)>
struct KernelOf<F> {
    static constexpr std::size_t kSizes[] = {sizeof(A)..., 0};

    template <class T>
    static T load(const Slot &slot) {
        T value;
        std::memcpy(&value, &slot, sizeof value);
        return value;
    }

    template <std::size_t... I>
    static void each(Group &group, const Slot *slots, std::index_sequence<I...>) {
        const std::tuple<A...> arguments{load<A>(slots[I])...};
        while (next_item(group)) F(std::get<I>(arguments)...);
    }

    static void items(Group &group, const Slot *slots) { each(group, slots, std::index_sequence_for<A...>{}); }
};

inline std::map<std::string, Kernel> &kernels() {
    static auto *const all = new std::map<std::string, Kernel>;
    return *all;
}

/// One line a kernel in the generated units.
template <auto F>
struct RegisterKernel {
    explicit RegisterKernel(const char *name) {
        using Of = KernelOf<F>;
        kernels()[name] = {name, &Of::items, sizeof Of::kSizes / sizeof Of::kSizes[0] - 1, Of::kSizes};
    }
};

}  // namespace gt_sim
