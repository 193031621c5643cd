/* One device source for every language: the words below are spelled per language, kernels use nothing else.
 *
 * A backend hands its compiler this file followed by one kernels/<name>.inc, concatenated: nothing is included, so no
 * compiler needs a search path in the guest. Conventions that tests and fault injection rely on:
 *   - argument 0 of every kernel is `gt_uint n`, the number of elements; items at or beyond n do nothing;
 *   - buffers are passed whole, with the index of the first element as an argument of its own (`<name>0`);
 *   - a*b+c is always written GT_FMA: whether compilers contract it differs between stacks.
 */
#if defined(__OPENCL_VERSION__)
#define GT_KERNEL(name) __kernel void name
#define GT_G __global
#define GT_SHARED(type, name, count) __local type name[count]
#define GT_BARRIER() barrier(CLK_LOCAL_MEM_FENCE)
#define GT_GID ((gt_uint)get_global_id(0))
#define GT_LID ((gt_uint)get_local_id(0))
#define GT_FMA(a, b, c) fma((a), (b), (c))
#define GT_ATOMIC_ADD(pointer, value) atomic_add((volatile __global gt_uint *)(pointer), (value))
typedef uint gt_uint;
#elif defined(__CUDACC__) || defined(__HIPCC__) || defined(__HIPCC_RTC__)
#if defined(__HIPCC__) && !defined(__HIPCC_RTC__)
#include <hip/hip_runtime.h>
#endif
#define GT_KERNEL(name) extern "C" __global__ void name
#define GT_G
#define GT_SHARED(type, name, count) __shared__ type name[count]
#define GT_BARRIER() __syncthreads()
#define GT_GID ((gt_uint)(blockIdx.x * blockDim.x + threadIdx.x))
#define GT_LID ((gt_uint)threadIdx.x)
#define GT_FMA(a, b, c) fmaf((a), (b), (c))
#define GT_ATOMIC_ADD(pointer, value) atomicAdd((gt_uint *)(pointer), (value))
typedef unsigned int gt_uint;
#else
#error "gt_lang.h does not know this device language yet"
#endif
