#include "fibers.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace gt_sim {
namespace {

char *stack_memory() {
    void *memory =
        ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    ::mprotect(memory, 4096, PROT_NONE);  // an overflow faults as any other access that is not the kernel's
    return static_cast<char *>(memory);
}

}  // namespace

#if defined(__x86_64__)

// swapcontext(3) would save the signal mask with a system call at every change; a tiled GEMM changes millions of times.
extern "C" void gt_sim_change(void **from, void *to);
asm(R"(
.text
.globl gt_sim_change
.hidden gt_sim_change
.type gt_sim_change, @function
gt_sim_change:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size gt_sim_change, .-gt_sim_change
)");

void prepare(Stack &stack, void (*entry)()) {
    if (!stack.memory) stack.memory = stack_memory();
    auto *top = reinterpret_cast<std::uint64_t *>(stack.memory + kStackBytes);
    *(top - 2) = reinterpret_cast<std::uint64_t>(entry);  // as if called: 8 bytes off a multiple of 16
    for (int saved = 3; saved <= 8; ++saved) *(top - saved) = 0;
    stack.at = top - 8;
}

void change(Stack &from, Stack &to) { gt_sim_change(&from.at, to.at); }

#else

void prepare(Stack &stack, void (*entry)()) {
    if (!stack.memory) stack.memory = stack_memory();
    if (!stack.at) stack.at = new ucontext_t;
    auto *context = static_cast<ucontext_t *>(stack.at);
    ::getcontext(context);
    context->uc_stack.ss_sp = stack.memory;
    context->uc_stack.ss_size = kStackBytes;
    context->uc_link = nullptr;
    ::makecontext(context, entry, 0);
}

void change(Stack &from, Stack &to) {
    if (!from.at) from.at = new ucontext_t;
    ::swapcontext(static_cast<ucontext_t *>(from.at), static_cast<ucontext_t *>(to.at));
}

#endif

}  // namespace gt_sim
