/* One device source for every language: the words below are spelled per language, kernels use nothing else.
 *
 * A compiler is handed this file followed by one kernels/<name>.inc, concatenated: nothing is included, so none needs a
 * search path in the guest. Conventions that tests and fault injection rely on:
 *   - argument 0 of every kernel is `gt_uint n`, the number of elements; items at or beyond n do nothing;
 *   - buffers are passed whole, with the index of the first element as an argument of its own (`<name>0`);
 *   - a*b+c is always written GT_FMA: whether compilers contract it differs between stacks;
 *   - every item of a group reaches every GT_BARRIER, also items at or beyond n;
 *   - kernels are one-dimensional; indices of two dimensions are computed.
 *
 * GT_ATOMIC_* act on global memory, at the scope of the device, and return what was there before.
 * GT_HAS_FP64, GT_HAS_FP16, GT_HAS_INT64_ATOMICS, GT_HAS_SUBGROUPS are defined where the words of that kind are.
 * GT_PRINTF(format, ...) prints whole numbers of 32 bits; GT_HAS_PRINTF says where it is.
 * GT_TRAP() and GT_FAIL_ASSERTION() end the launch with an error; GT_HAS_TRAP and GT_HAS_ASSERT say where they are.
 * gt_uint4 and gt_float4 are read and written whole, 16 bytes at once, at places that are multiples of 16 bytes.
 * gt_half2 is two half-precision numbers in one register, which is how GPUs reach their half-precision peak.
 */
#if defined(__OPENCL_VERSION__)
#define GT_KERNEL(name) __kernel void name
#define GT_FUNCTION static inline
#define GT_G __global
#define GT_SHARED(type, name, count) __local type name[count]
#define GT_S __local
#define GT_BARRIER() barrier(CLK_LOCAL_MEM_FENCE | CLK_GLOBAL_MEM_FENCE)
#define GT_FENCE() mem_fence(CLK_GLOBAL_MEM_FENCE)
#define GT_GID ((gt_uint)get_global_id(0))
#define GT_LID ((gt_uint)get_local_id(0))
#define GT_GROUP ((gt_uint)get_group_id(0))
#define GT_GROUP_SIZE ((gt_uint)get_local_size(0))
#define GT_ITEMS ((gt_uint)get_global_size(0))
#define GT_FMA(a, b, c) fma((a), (b), (c))
#define GT_FMA64(a, b, c) fma((a), (b), (c))
#define GT_SQRT(a) sqrt((float)(a))
#define GT_EXP(a) exp((float)(a))
#define GT_SIN(a) sin((float)(a))
#define GT_COS(a) cos((float)(a))
#define GT_AS_FLOAT(u) as_float(u)
#define GT_AS_UINT(f) as_uint(f)
#define GT_ATOMIC_ADD(pointer, value) atomic_add((volatile __global gt_uint *)(pointer), (value))
#define GT_ATOMIC_MIN(pointer, value) atomic_min((volatile __global gt_uint *)(pointer), (value))
#define GT_ATOMIC_MAX(pointer, value) atomic_max((volatile __global gt_uint *)(pointer), (value))
#define GT_ATOMIC_XCHG(pointer, value) atomic_xchg((volatile __global gt_uint *)(pointer), (value))
#define GT_ATOMIC_CAS(pointer, expected, value) \
    atomic_cmpxchg((volatile __global gt_uint *)(pointer), (expected), (value))
#if __OPENCL_C_VERSION__ >= 120 || __OPENCL_VERSION__ >= 120
#define GT_HAS_PRINTF
#define GT_PRINTF(...) printf(__VA_ARGS__)
#endif
typedef uint gt_uint;
typedef int gt_int;
typedef ulong gt_ulong;
typedef ushort gt_ushort;
typedef uchar gt_uchar;
typedef uint4 gt_uint4;
typedef float4 gt_float4;
#if defined(cl_khr_fp64) || __OPENCL_C_VERSION__ >= 300
#define GT_HAS_FP64
#endif
#if defined(cl_khr_fp16)
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
#define GT_HAS_FP16
typedef half2 gt_half2;
#define GT_HALF2(x, y) ((half2)((half)(float)(x), (half)(float)(y)))
#define GT_HALF2_X(h) ((float)(h).x)
#define GT_HALF2_Y(h) ((float)(h).y)
#define GT_FMA_HALF2(a, b, c) fma((a), (b), (c))
#endif
#if defined(cl_khr_int64_base_atomics)
#pragma OPENCL EXTENSION cl_khr_int64_base_atomics : enable
#define GT_HAS_INT64_ATOMICS
#define GT_ATOMIC_ADD64(pointer, value) atom_add((volatile __global gt_ulong *)(pointer), (value))
#define GT_ATOMIC_CAS64(pointer, expected, value) \
    atom_cmpxchg((volatile __global gt_ulong *)(pointer), (expected), (value))
#endif
/* OpenCL C 1.2 adds no floats atomically: compare and swap the bits. */
static inline float gt_atomic_add_float(volatile __global float *pointer, float value) {
    volatile __global gt_uint *word = (volatile __global gt_uint *)pointer;
    gt_uint seen = *word, before;
    do {
        before = seen;
        seen = atomic_cmpxchg(word, before, as_uint(as_float(before) + value));
    } while (seen != before);
    return as_float(before);
}
#define GT_ATOMIC_ADDF(pointer, value) gt_atomic_add_float((volatile __global float *)(pointer), (value))
/* Only where Intel's own compiler is told so: a portable SPIR-V module must not ask for Intel's capability. */
#if defined(GT_INTEL_SUBGROUPS)
#define GT_HAS_SUBGROUPS
#define GT_SHUFFLE(value, lane) intel_sub_group_shuffle((value), (gt_uint)(lane))
#define GT_LANES ((gt_uint)get_max_sub_group_size())
#define GT_LANE ((gt_uint)get_sub_group_local_id())
#endif

#elif defined(GT_AMDGPU)
/* clang for AMD's GPUs without HIP's headers and device library: the compiler's own words. */
#define GT_KERNEL(name) extern "C" __attribute__((global)) void name
#define GT_FUNCTION static __attribute__((device)) __attribute__((always_inline)) inline
#define GT_G
#define GT_SHARED(type, name, count) static __attribute__((shared)) type name[count]
#define GT_S
#define GT_BARRIER() gt_amd_barrier()
#define GT_FENCE() __builtin_amdgcn_fence(__ATOMIC_SEQ_CST, "agent")
#define GT_GID ((gt_uint)(__builtin_amdgcn_workgroup_id_x() * GT_GROUP_SIZE + __builtin_amdgcn_workitem_id_x()))
#define GT_LID ((gt_uint)__builtin_amdgcn_workitem_id_x())
#define GT_GROUP ((gt_uint)__builtin_amdgcn_workgroup_id_x())
#define GT_GROUP_SIZE ((gt_uint)__builtin_amdgcn_workgroup_size_x())
#define GT_ITEMS ((gt_uint)__builtin_amdgcn_grid_size_x())
#define GT_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#define GT_FMA64(a, b, c) __builtin_fma((double)(a), (double)(b), (double)(c))
#define GT_SQRT(a) __builtin_sqrtf(a)
#define GT_EXP(a) __builtin_expf(a)
#define GT_SIN(a) gt_amd_sine((a), 0u)
#define GT_COS(a) gt_amd_sine((a), 1u)
#define GT_AS_FLOAT(u) __builtin_bit_cast(float, (gt_uint)(u))
#define GT_AS_UINT(f) __builtin_bit_cast(gt_uint, (float)(f))
#define GT_AMD_ORDER __ATOMIC_RELAXED, __HIP_MEMORY_SCOPE_AGENT
#define GT_ATOMIC_ADD(pointer, value) __hip_atomic_fetch_add((gt_uint *)(pointer), (gt_uint)(value), GT_AMD_ORDER)
#define GT_ATOMIC_MIN(pointer, value) __hip_atomic_fetch_min((gt_uint *)(pointer), (gt_uint)(value), GT_AMD_ORDER)
#define GT_ATOMIC_MAX(pointer, value) __hip_atomic_fetch_max((gt_uint *)(pointer), (gt_uint)(value), GT_AMD_ORDER)
#define GT_ATOMIC_XCHG(pointer, value) __hip_atomic_exchange((gt_uint *)(pointer), (gt_uint)(value), GT_AMD_ORDER)
#define GT_ATOMIC_CAS(pointer, expected, value) \
    gt_amd_swap((gt_uint *)(pointer), (gt_uint)(expected), (gt_uint)(value))
#define GT_HAS_FP64
#define GT_HAS_INT64_ATOMICS
#define GT_ATOMIC_ADD64(pointer, value) __hip_atomic_fetch_add((gt_ulong *)(pointer), (gt_ulong)(value), GT_AMD_ORDER)
#define GT_ATOMIC_CAS64(pointer, expected, value) \
    gt_amd_swap((gt_ulong *)(pointer), (gt_ulong)(expected), (gt_ulong)(value))
#define GT_ATOMIC_ADDF(pointer, value) __hip_atomic_fetch_add((float *)(pointer), (float)(value), GT_AMD_ORDER)
#define GT_HAS_SUBGROUPS
#define GT_SHUFFLE(value, lane) gt_amd_shuffle((value), (gt_uint)(lane))
#define GT_LANES ((gt_uint)__builtin_amdgcn_wavefrontsize())
#define GT_LANE (GT_LID % GT_LANES)
#define GT_HAS_TRAP
#define GT_TRAP() __builtin_trap() /* what a failed assertion comes down to in HIP, without its message */
typedef unsigned int gt_uint;
typedef int gt_int;
typedef unsigned long long gt_ulong;
typedef unsigned short gt_ushort;
typedef unsigned char gt_uchar;
struct alignas(16) gt_uint4 {
    gt_uint x, y, z, w;
};
struct alignas(16) gt_float4 {
    float x, y, z, w;
};
#define GT_HAS_FP16
typedef _Float16 gt_half2 __attribute__((ext_vector_type(2)));
#define GT_HALF2(x, y) (gt_half2{(_Float16)(float)(x), (_Float16)(float)(y)})
#define GT_HALF2_X(h) ((float)(h)[0])
#define GT_HALF2_Y(h) ((float)(h)[1])
#define GT_FMA_HALF2(a, b, c) __builtin_elementwise_fma((gt_half2)(a), (gt_half2)(b), (gt_half2)(c))
GT_FUNCTION void gt_amd_barrier() {
    __builtin_amdgcn_fence(__ATOMIC_RELEASE, "workgroup");
    __builtin_amdgcn_s_barrier();
    __builtin_amdgcn_fence(__ATOMIC_ACQUIRE, "workgroup");
}
template <class T>
GT_FUNCTION T gt_amd_swap(T *pointer, T expected, T value) {
    __hip_atomic_compare_exchange_strong(pointer, &expected, value, __ATOMIC_RELAXED, GT_AMD_ORDER);
    return expected;
}
template <class T>
GT_FUNCTION T gt_amd_shuffle(T value, gt_uint lane) {
    static_assert(sizeof(T) % 4 == 0, "lanes pass words");
    int words[sizeof(T) / 4];
    __builtin_memcpy(words, &value, sizeof value);
    for (int &word : words) word = __builtin_amdgcn_ds_bpermute((int)(lane * 4u), word);
    __builtin_memcpy(&value, words, sizeof value);
    return value;
}
/* The hardware's sine loses digits with the size of its argument. So take off multiples of pi/2, which is held in three
 * parts, and use the usual polynomials on [-pi/4, pi/4]: within 2 units in the last place up to |angle| = 10000. */
GT_FUNCTION float gt_amd_sine(float angle, gt_uint quarter) {
    const float turns = __builtin_rintf(angle * 0x1.45f306p-1f);
    float x = __builtin_fmaf(turns, -0x1.921fb6p+0f, angle);
    x = __builtin_fmaf(turns, 0x1.777a5cp-25f, x);
    x = __builtin_fmaf(turns, 0x1.ee59dap-50f, x);
    const float y = x * x;
    float sine = __builtin_fmaf(y, -0x1.9943f2p-13f, 0x1.11073cp-7f);
    sine = __builtin_fmaf(__builtin_fmaf(y, sine, -0x1.555546p-3f) * y, x, x);
    float cosine = __builtin_fmaf(y, 0x1.99eb9cp-16f, -0x1.6c0c34p-10f);
    cosine = __builtin_fmaf(y, cosine, 0x1.55554ap-5f);
    cosine = __builtin_fmaf(cosine * y, y, __builtin_fmaf(y, -0.5f, 1.0f));
    const gt_uint quadrant = (gt_uint)(int)turns + quarter;
    const float of = quadrant & 1u ? cosine : sine;
    return quadrant & 2u ? -of : of;
}

#elif defined(__CUDACC__) || defined(__HIPCC__) || defined(__HIPCC_RTC__)
#if defined(__HIPCC__) && !defined(__HIPCC_RTC__)
#include <hip/hip_runtime.h>
#endif
#define GT_KERNEL(name) extern "C" __global__ void name
#define GT_FUNCTION __device__ __forceinline__
#define GT_G
#define GT_SHARED(type, name, count) __shared__ type name[count]
#define GT_S
#define GT_BARRIER() __syncthreads()
#define GT_FENCE() __threadfence()
#define GT_GID ((gt_uint)(blockIdx.x * blockDim.x + threadIdx.x))
#define GT_LID ((gt_uint)threadIdx.x)
#define GT_GROUP ((gt_uint)blockIdx.x)
#define GT_GROUP_SIZE ((gt_uint)blockDim.x)
#define GT_ITEMS ((gt_uint)(gridDim.x * blockDim.x))
#define GT_FMA(a, b, c) fmaf((a), (b), (c))
#define GT_FMA64(a, b, c) fma((double)(a), (double)(b), (double)(c))
#define GT_SQRT(a) sqrtf(a)
#define GT_EXP(a) expf(a)
#define GT_SIN(a) sinf(a)
#define GT_COS(a) cosf(a)
#define GT_AS_FLOAT(u) __uint_as_float(u)
#define GT_AS_UINT(f) __float_as_uint(f)
#define GT_ATOMIC_ADD(pointer, value) atomicAdd((gt_uint *)(pointer), (gt_uint)(value))
#define GT_ATOMIC_MIN(pointer, value) atomicMin((gt_uint *)(pointer), (gt_uint)(value))
#define GT_ATOMIC_MAX(pointer, value) atomicMax((gt_uint *)(pointer), (gt_uint)(value))
#define GT_ATOMIC_XCHG(pointer, value) atomicExch((gt_uint *)(pointer), (gt_uint)(value))
#define GT_ATOMIC_CAS(pointer, expected, value) \
    atomicCAS((gt_uint *)(pointer), (gt_uint)(expected), (gt_uint)(value))
#define GT_HAS_FP64
#define GT_HAS_INT64_ATOMICS
#define GT_ATOMIC_ADD64(pointer, value) atomicAdd((gt_ulong *)(pointer), (gt_ulong)(value))
#define GT_ATOMIC_CAS64(pointer, expected, value) \
    atomicCAS((gt_ulong *)(pointer), (gt_ulong)(expected), (gt_ulong)(value))
#define GT_ATOMIC_ADDF(pointer, value) atomicAdd((float *)(pointer), (float)(value))
#define GT_HAS_SUBGROUPS
#if defined(__CUDACC__)
#define GT_SHUFFLE(value, lane) __shfl_sync(0xFFFFFFFFu, (value), (int)(lane))
#else
#define GT_SHUFFLE(value, lane) __shfl((value), (int)(lane))
#endif
#define GT_HAS_TRAP
#if defined(__CUDACC__)
#define GT_TRAP() asm volatile("trap;")
#define GT_HAS_PRINTF
#define GT_PRINTF(...) printf(__VA_ARGS__)
/* What assert() calls when it fails: the driver has it, and writes the message. */
#define GT_HAS_ASSERT
#define GT_FAIL_ASSERTION() __assertfail("false", "kernel", 1u, "kernel", 1u)
#else
#define GT_TRAP() __builtin_trap()
#endif
#define GT_LANES ((gt_uint)warpSize)
#define GT_LANE (GT_LID % GT_LANES)
typedef unsigned int gt_uint;
typedef int gt_int;
typedef unsigned long long gt_ulong;
typedef unsigned short gt_ushort;
typedef unsigned char gt_uchar;
struct alignas(16) gt_uint4 {
    gt_uint x, y, z, w;
};
struct alignas(16) gt_float4 {
    float x, y, z, w;
};
#if defined(__CUDACC__)
/* The headers of half precision are not at hand in every guest; PTX has had its packed form since sm_53. */
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 530
#define GT_HAS_FP16
typedef gt_uint gt_half2;
GT_FUNCTION gt_half2 gt_make_half2(float x, float y) {
    gt_half2 out;
    asm("{ .reg .f16 l, h; cvt.rn.f16.f32 l, %1; cvt.rn.f16.f32 h, %2; mov.b32 %0, {l, h}; }"
        : "=r"(out)
        : "f"(x), "f"(y));
    return out;
}
GT_FUNCTION float gt_half2_part(gt_half2 pair, gt_uint shift) {
    float out;
    asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"((gt_ushort)(pair >> shift)));
    return out;
}
GT_FUNCTION gt_half2 gt_fma_half2(gt_half2 a, gt_half2 b, gt_half2 c) {
    gt_half2 out;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(c));
    return out;
}
#define GT_HALF2(x, y) gt_make_half2((float)(x), (float)(y))
#define GT_HALF2_X(h) gt_half2_part((h), 0u)
#define GT_HALF2_Y(h) gt_half2_part((h), 16u)
#define GT_FMA_HALF2(a, b, c) gt_fma_half2((a), (b), (c))
#endif
#else
#define GT_HAS_FP16
typedef _Float16 gt_half2 __attribute__((ext_vector_type(2)));
#define GT_HALF2(x, y) (gt_half2{(_Float16)(float)(x), (_Float16)(float)(y)})
#define GT_HALF2_X(h) ((float)(h)[0])
#define GT_HALF2_Y(h) ((float)(h)[1])
#define GT_FMA_HALF2(a, b, c) ((a) * (b) + (c)) /* contracted to the packed instruction where there is one */
#endif

#elif defined(GT_CPU)
/* The simulated GPU of the tests of the tests: plain C++, which includes <cmath> and declares the gt_cpu_* functions
 * before this. A group runs on one thread, so what it shares is thread-local. */
#define GT_KERNEL(name) extern "C" void name
#define GT_FUNCTION static inline
#define GT_G
#define GT_SHARED(type, name, count) static thread_local type name[count]
#define GT_S
#define GT_BARRIER() gt_cpu_barrier()
#define GT_FENCE() __atomic_thread_fence(__ATOMIC_SEQ_CST)
#define GT_GID ((gt_uint)gt_cpu_item().global)
#define GT_LID ((gt_uint)gt_cpu_item().local)
#define GT_GROUP ((gt_uint)gt_cpu_item().group)
#define GT_GROUP_SIZE ((gt_uint)gt_cpu_item().group_size)
#define GT_ITEMS ((gt_uint)gt_cpu_item().items)
#define GT_FMA(a, b, c) gt_cpu_fma((float)(a), (float)(b), (float)(c))
#define GT_FMA64(a, b, c) gt_cpu_fma64((double)(a), (double)(b), (double)(c))
#define GT_SQRT(a) std::sqrt((float)(a))
#define GT_EXP(a) std::exp((float)(a))
#define GT_SIN(a) std::sin((float)(a))
#define GT_COS(a) std::cos((float)(a))
#define GT_AS_FLOAT(u) gt_cpu_as<float>((gt_uint)(u))
#define GT_AS_UINT(f) gt_cpu_as<gt_uint>((float)(f))
#define GT_ATOMIC_ADD(pointer, value) gt_cpu_add((gt_uint *)(pointer), (gt_uint)(value))
#define GT_ATOMIC_MIN(pointer, value) \
    gt_cpu_update((gt_uint *)(pointer), [&](gt_uint old) { return old < (gt_uint)(value) ? old : (gt_uint)(value); })
#define GT_ATOMIC_MAX(pointer, value) \
    gt_cpu_update((gt_uint *)(pointer), [&](gt_uint old) { return old > (gt_uint)(value) ? old : (gt_uint)(value); })
#define GT_ATOMIC_XCHG(pointer, value) __atomic_exchange_n((gt_uint *)(pointer), (gt_uint)(value), __ATOMIC_SEQ_CST)
#define GT_ATOMIC_CAS(pointer, expected, value) \
    gt_cpu_swap((gt_uint *)(pointer), (gt_uint)(expected), (gt_uint)(value))
#define GT_HAS_FP64
#define GT_HAS_INT64_ATOMICS
#define GT_ATOMIC_ADD64(pointer, value) gt_cpu_add((gt_ulong *)(pointer), (gt_ulong)(value))
#define GT_ATOMIC_CAS64(pointer, expected, value) \
    gt_cpu_swap((gt_ulong *)(pointer), (gt_ulong)(expected), (gt_ulong)(value))
#define GT_ATOMIC_ADDF(pointer, value) \
    gt_cpu_update((float *)(pointer), [&](float old) { return old + (float)(value); })
#define GT_HAS_SUBGROUPS
#define GT_SHUFFLE(value, lane) gt_cpu_shuffle((value), (gt_uint)(lane))
#define GT_LANES 32u
#define GT_LANE (GT_LID % GT_LANES)
#define GT_HAS_TRAP
#define GT_HAS_PRINTF
#define GT_PRINTF(...) gt_cpu_printf(__VA_ARGS__)
#define GT_TRAP() gt_cpu_fail(719)
#define GT_HAS_ASSERT
#define GT_FAIL_ASSERTION() gt_cpu_fail(710)
typedef unsigned int gt_uint;
typedef int gt_int;
typedef unsigned long long gt_ulong;
typedef unsigned short gt_ushort;
typedef unsigned char gt_uchar;
struct alignas(16) gt_uint4 {
    gt_uint x, y, z, w;
};
struct alignas(16) gt_float4 {
    float x, y, z, w;
};
template <class To, class From>
inline To gt_cpu_as(From from) {
    static_assert(sizeof(To) == sizeof(From), "a change of type keeps the bits");
    To to;
    __builtin_memcpy(&to, &from, sizeof to);
    return to;
}
template <class T>
inline T gt_cpu_swap(T *pointer, T expected, T value) {
    __atomic_compare_exchange_n(pointer, &expected, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return expected;
}
template <class T, class F>
inline T gt_cpu_update(T *pointer, F change) {
    T before, after;
    __atomic_load(pointer, &before, __ATOMIC_SEQ_CST);
    do after = change(before);
    while (!__atomic_compare_exchange(pointer, &before, &after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return before;
}

#elif defined(SYCL_LANGUAGE_VERSION)
/* Compiled at run time by libsycl, which has SYCL's headers built in. Kernels are free functions, so that they keep the
 * names and the argument lists that they have elsewhere. The backend defines GT_HAS_FP64, GT_HAS_FP16 and
 * GT_HAS_INT64_ATOMICS where the device has what they say: code for another device does not build. */
#include <sycl/sycl.hpp>
#define GT_KERNEL(name)                                                                                       \
    extern "C" SYCL_EXT_ONEAPI_FUNCTION_PROPERTY((sycl::ext::oneapi::experimental::nd_range_kernel<1>)) void name
#define GT_FUNCTION static inline
#define GT_G
#define GT_ITEM (sycl::ext::oneapi::this_work_item::get_nd_item<1>())
#define GT_SHARED(type, name, count)                                                 \
    sycl::ext::oneapi::experimental::work_group_static<type[count]> name##_of_group; \
    type *name = reinterpret_cast<type *>(&name##_of_group)
#define GT_S
#define GT_BARRIER() sycl::group_barrier(GT_ITEM.get_group())
#define GT_FENCE() sycl::atomic_fence(sycl::memory_order::acq_rel, sycl::memory_scope::device)
#define GT_GID ((gt_uint)GT_ITEM.get_global_id(0))
#define GT_LID ((gt_uint)GT_ITEM.get_local_id(0))
#define GT_GROUP ((gt_uint)GT_ITEM.get_group(0))
#define GT_GROUP_SIZE ((gt_uint)GT_ITEM.get_local_range(0))
#define GT_ITEMS ((gt_uint)GT_ITEM.get_global_range(0))
#define GT_FMA(a, b, c) sycl::fma((float)(a), (float)(b), (float)(c))
#define GT_FMA64(a, b, c) sycl::fma((double)(a), (double)(b), (double)(c))
#define GT_SQRT(a) sycl::sqrt((float)(a))
#define GT_EXP(a) sycl::exp((float)(a))
#define GT_SIN(a) sycl::sin((float)(a))
#define GT_COS(a) sycl::cos((float)(a))
#define GT_AS_FLOAT(u) sycl::bit_cast<float>((gt_uint)(u))
#define GT_AS_UINT(f) sycl::bit_cast<gt_uint>((float)(f))
#define GT_ATOMIC_ADD(pointer, value) gt_sycl_atomic<gt_uint>(*(pointer)).fetch_add((gt_uint)(value))
#define GT_ATOMIC_MIN(pointer, value) gt_sycl_atomic<gt_uint>(*(pointer)).fetch_min((gt_uint)(value))
#define GT_ATOMIC_MAX(pointer, value) gt_sycl_atomic<gt_uint>(*(pointer)).fetch_max((gt_uint)(value))
#define GT_ATOMIC_XCHG(pointer, value) gt_sycl_atomic<gt_uint>(*(pointer)).exchange((gt_uint)(value))
#define GT_ATOMIC_CAS(pointer, expected, value) \
    gt_sycl_swap<gt_uint>(*(pointer), (gt_uint)(expected), (gt_uint)(value))
#define GT_ATOMIC_ADD64(pointer, value) gt_sycl_atomic<gt_ulong>(*(pointer)).fetch_add((gt_ulong)(value))
#define GT_ATOMIC_CAS64(pointer, expected, value) \
    gt_sycl_swap<gt_ulong>(*(pointer), (gt_ulong)(expected), (gt_ulong)(value))
#define GT_ATOMIC_ADDF(pointer, value) gt_sycl_atomic<float>(*(pointer)).fetch_add((float)(value))
#define GT_HAS_SUBGROUPS
#define GT_SHUFFLE(value, lane) sycl::select_from_group(GT_ITEM.get_sub_group(), (value), (gt_uint)(lane))
#define GT_LANES ((gt_uint)GT_ITEM.get_sub_group().get_max_local_range()[0])
#define GT_LANE ((gt_uint)GT_ITEM.get_sub_group().get_local_id()[0])
typedef unsigned int gt_uint;
typedef int gt_int;
typedef unsigned long gt_ulong;
typedef unsigned short gt_ushort;
typedef unsigned char gt_uchar;
struct alignas(16) gt_uint4 {
    gt_uint x, y, z, w;
};
struct alignas(16) gt_float4 {
    float x, y, z, w;
};
#if defined(GT_HAS_FP16)
typedef sycl::vec<sycl::half, 2> gt_half2;
#define GT_HALF2(x, y) (gt_half2((sycl::half)(float)(x), (sycl::half)(float)(y)))
#define GT_HALF2_X(h) ((float)(h)[0])
#define GT_HALF2_Y(h) ((float)(h)[1])
#define GT_FMA_HALF2(a, b, c) sycl::fma((a), (b), (c))
#endif
template <class T>
using gt_sycl_atomic = sycl::atomic_ref<T, sycl::memory_order::relaxed, sycl::memory_scope::device,
                                        sycl::access::address_space::global_space>;
template <class T>
inline T gt_sycl_swap(T &place, T expected, T value) {
    gt_sycl_atomic<T>(place).compare_exchange_strong(expected, value);
    return expected;
}

#else
#error "gt_lang.h does not know this device language yet"
#endif

/* The mixing of 32 bits and the lattice number of place `i` in stream `salt`: what host/data.h computes on the host. */
GT_FUNCTION gt_uint gt_mix(gt_uint x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    x ^= x >> 16;
    return x;
}
GT_FUNCTION float gt_lattice(gt_uint salt, gt_uint i) {
    return (float)(gt_mix(i ^ gt_mix(salt)) >> 12) * (1.0f / 2097152.0f);
}
