// Stacks of their own for the items of a group that wait for each other.
#pragma once

#include <cstddef>

namespace gt_sim {

constexpr std::size_t kStackBytes = 128 * 1024;

/// Where a stack stopped. Opaque.
struct Stack {
    void *at = nullptr;
    char *memory = nullptr;  // null: the stack of the thread
};

/// Make a stack (its memory is kept from use to use) start with `entry`, which never returns.
void prepare(Stack &stack, void (*entry)());
/// Leave the running stack at `from` and go on with `to`.
void change(Stack &from, Stack &to);

}  // namespace gt_sim
