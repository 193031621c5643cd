#include "sim_groups.h"

#include <csetjmp>
#include <csignal>
#include <cstdlib>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

#include "fibers.h"
#include "gt_cpu.h"
#include "sim.h"
#include "sim_pages.h"

__thread GtCpuItem gt_cpu_current;
int gt_cpu_broken = kGtCpuSound;

namespace gt_sim {

constexpr std::uint32_t kLanes = 32, kMostItems = 1024;

/// Counts who has come to a meeting point; the generation changes when all have.
struct Meeting {
    std::uint32_t arrived = 0, ended = 0, size = 0;
    std::uint64_t generation = 0;

    void release_if_all() {
        if (arrived > 0 && arrived + ended == size) arrived = 0, ++generation;
    }
};

struct Fiber {
    Stack stack;
    std::uint32_t item = 0, exchanges = 0;
    bool running = false;                 // has an item
    bool active = false;                  // has not come to its end
    const Meeting *waits = nullptr;
    std::uint64_t seen = 0;

    bool runnable() const { return active && (!waits || waits->generation != seen); }
};

/// The group that a thread runs. Fiber 0 is the thread's own stack: kernels without barriers need no other.
struct Group {
    const Launch *launch = nullptr;
    std::uint32_t index = 0, started = 0, current = 0, used = 1;
    std::vector<std::unique_ptr<Fiber>> fibers;
    Meeting all, lanes[kMostItems / kLanes];
    std::uint64_t handed_in[2][kMostItems] = {};
};

namespace {

__thread Group *group_of_thread;
__thread sigjmp_buf *landing;

void make_current(const Group &group, std::uint32_t item) {
    gt_cpu_current.local = item;
    gt_cpu_current.global = group.index * group.launch->group_size + item;
}

void go_on(Group &group, std::uint32_t to) {
    Fiber &from = *group.fibers[group.current];
    group.current = to;
    change(from.stack, group.fibers[to]->stack);
}

void fiber_entry();

/// Let another fiber run: a new one while there are items that have not been started, else the next that can go on.
void yield(Group &group) {
    if (group.started < group.launch->group_size) {
        if (group.used == group.fibers.size()) group.fibers.push_back(std::make_unique<Fiber>());
        Fiber &fresh = *group.fibers[group.used];
        fresh.active = true, fresh.running = false, fresh.waits = nullptr;
        prepare(fresh.stack, fiber_entry);
        go_on(group, group.used++);
        return;
    }
    for (std::uint32_t step = 1; step <= group.used; ++step) {
        const std::uint32_t candidate = (group.current + step) % group.used;
        if (!group.fibers[candidate]->runnable()) continue;
        if (candidate != group.current) go_on(group, candidate);
        return;
    }
    if (group.all.ended == group.launch->group_size) go_on(group, 0);  // the last fiber ends: back to the thread's own
    gt_cpu_fail(kLaunchFailed);  // items wait for each other at different places
}

void fiber_entry() {
    Group &group = *group_of_thread;
    group.launch->kernel->items(group, group.launch->arguments.data());
    group.fibers[group.current]->active = false;
    yield(group);
    std::abort();  // nothing goes on with a fiber that has ended
}

void meet(Group &group, Meeting &meeting) {
    Fiber &fiber = *group.fibers[group.current];
    const std::uint64_t before = meeting.generation;
    ++meeting.arrived;
    meeting.release_if_all();
    fiber.waits = &meeting, fiber.seen = before;
    while (meeting.generation == before) yield(group);
    fiber.waits = nullptr;
    make_current(group, fiber.item);
}

void run_group(Group &group, std::uint32_t index) {
    const std::uint32_t size = group.launch->group_size;
    group.index = index, group.started = 0, group.current = 0, group.used = 1;
    group.all = {0, 0, size, 0};
    for (std::uint32_t first = 0; first < size; first += kLanes) {
        group.lanes[first / kLanes] = {0, 0, std::min(kLanes, size - first), 0};
    }
    gt_cpu_current.group = index;
    Fiber &own = *group.fibers[0];
    own.active = true, own.running = false, own.waits = nullptr;
    group.launch->kernel->items(group, group.launch->arguments.data());
    own.active = false;
    while (group.all.ended < size) yield(group);
}

/// A launch that several threads work on.
struct Job {
    const Launch *launch;
    std::atomic<std::uint32_t> next{0}, busy{0};
    std::atomic<int> status{kSuccess};
};

/// Take groups of a job until none is left. An access that faults ends it.
void work(Job &job) {
    if (!group_of_thread) {
        group_of_thread = new Group;
        group_of_thread->fibers.push_back(std::make_unique<Fiber>());
    }
    Group &group = *group_of_thread;
    group.launch = job.launch;
    gt_cpu_current.group_size = job.launch->group_size;
    gt_cpu_current.items = job.launch->groups * job.launch->group_size;
    sigjmp_buf here;
    landing = &here;
    const int failed = sigsetjmp(here, 1);
    if (failed == 0) {
        for (std::uint32_t i; job.status == kSuccess && (i = job.next++) < job.launch->groups;) run_group(group, i);
    } else {
        job.status = failed;
    }
    landing = nullptr;
}

void on_fault(int signal, siginfo_t *fault, void *) {
    if (signal == SIGSEGV && page_in(fault->si_addr, landing != nullptr)) return;
    if (landing) siglongjmp(*landing, kIllegalAddress);
    std::signal(signal, SIG_DFL);  // not a kernel's: the instruction faults again
}

/// Threads that help with large launches.
class Helpers {
  public:
    Helpers() {
        catch_faults();
        const unsigned cores = std::max(1u, std::min(4u, std::thread::hardware_concurrency()));
        for (unsigned i = 1; i < cores; ++i) std::thread([this] { serve(); }).detach();
        count_ = cores - 1;
    }

    void invite(const std::shared_ptr<Job> &job) {
        const std::lock_guard<std::mutex> hold(lock_);
        for (unsigned i = 0; i < count_; ++i) jobs_.push_back(job);
        wake_.notify_all();
    }

    /// No helper starts on the job any more, and those that did have ended.
    void dismiss(const std::shared_ptr<Job> &job) {
        std::unique_lock<std::mutex> hold(lock_);
        jobs_.erase(std::remove(jobs_.begin(), jobs_.end(), job), jobs_.end());
        ended_.wait(hold, [&] { return job->busy == 0; });
    }

  private:
    void serve() {
        std::unique_lock<std::mutex> hold(lock_);
        while (true) {
            wake_.wait(hold, [&] { return !jobs_.empty(); });
            const std::shared_ptr<Job> job = jobs_.front();
            jobs_.pop_front();
            ++job->busy;
            hold.unlock();
            work(*job);
            hold.lock();
            --job->busy;
            ended_.notify_all();
        }
    }

    std::mutex lock_;
    std::condition_variable wake_, ended_;
    std::deque<std::shared_ptr<Job>> jobs_;
    unsigned count_ = 0;
};

}  // namespace

bool next_item(Group &group) {
    Fiber &fiber = *group.fibers[group.current];
    if (fiber.running) {
        ++group.all.ended, ++group.lanes[fiber.item / kLanes].ended;
        group.all.release_if_all(), group.lanes[fiber.item / kLanes].release_if_all();
        fiber.running = false;
    }
    if (group.started == group.launch->group_size) return false;
    fiber.item = group.started++;
    fiber.running = true;
    fiber.exchanges = 0;
    make_current(group, fiber.item);
    return true;
}

void catch_faults() {
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    for (int signal : {SIGSEGV, SIGBUS}) ::sigaction(signal, &action, nullptr);
}

int run(const Launch &launch) {
    static auto *const helpers = new Helpers;
    const auto job = std::make_shared<Job>();
    job->launch = &launch;
    const bool large = launch.groups >= 4 && std::uint64_t{launch.groups} * launch.group_size >= 8192;
    if (large) helpers->invite(job);
    work(*job);
    if (large) helpers->dismiss(job);
    return job->status;
}

}  // namespace gt_sim

void gt_cpu_barrier() { gt_sim::meet(*gt_sim::group_of_thread, gt_sim::group_of_thread->all); }

std::uint64_t gt_cpu_exchange(std::uint64_t bits, std::uint32_t lane) {
    gt_sim::Group &group = *gt_sim::group_of_thread;
    gt_sim::Fiber &fiber = *group.fibers[group.current];
    // Two sets of places in turn: nobody hands in for the next but one before all have fetched from this one.
    std::uint64_t *places = group.handed_in[fiber.exchanges++ % 2];
    const std::uint32_t first = fiber.item / gt_sim::kLanes * gt_sim::kLanes;
    places[fiber.item] = bits;
    gt_sim::meet(group, group.lanes[first / gt_sim::kLanes]);
    return places[first + lane % gt_sim::kLanes];
}

void gt_cpu_fail(int status) {
    if (gt_sim::landing) siglongjmp(*gt_sim::landing, status);
    std::abort();
}

bool gt_cpu_loses_add() {
    static std::atomic<std::uint32_t> count{0};
    return ++count % 64 == 0;
}
