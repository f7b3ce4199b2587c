/* SPDX-License-Identifier: Apache-2.0 */
/*
 * matmul - see matmul.h.
 *
 * C = A x B, A by rows, B by columns, so that both are read along k. A thread block has 128 x 128
 * of C; each of its eight warps has 64 x 32 of that, in fragments of 16 x 16. The next step's tiles
 * are on their way to registers while this one's are multiplied.
 */
#include "matmul.h"

#include <cstdio>
#include <cstdlib>
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <mma.h>

#include "gpu_bare.h"

#define SIZE 4096u
#define TILE 128u
#define STEP 32u          /* of k */
#define PITCH (STEP + 8u) /* rows begin in different banks */
#define THREADS 256u
/* a thread moves, of each tile */
#define WORDS (TILE * STEP * sizeof(__nv_bfloat16) / sizeof(uint4) / THREADS)
#define SAMPLES 256u

/*
 * Whole numbers from -4 to 3, another pattern for each matrix. Sums of 4096 products stay below
 * 2^24: exact in a float.
 */
static __host__ __device__ int element(uint32_t matrix, uint32_t i)
{
    return (int)((i + matrix * 77777u) * 2654435761u >> 29) - 4;
}

static __global__ void fill(__nv_bfloat16 *a, __nv_bfloat16 *b)
{
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < SIZE * SIZE;
         i += gridDim.x * blockDim.x) {
        a[i] = __float2bfloat16((float)element(0, i));
        b[i] = __float2bfloat16((float)element(1, i));
    }
}

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
struct tile {
    uint4 words[WORDS];
};

/* Thread t has words t, t + THREADS, ...: four of them are a row of STEP elements. */
static __device__ tile fetch(const __nv_bfloat16 *from, uint32_t first_row, uint32_t k)
{
    tile held;
    for (uint32_t i = 0; i < WORDS; i++) {
        uint32_t word = threadIdx.x + i * THREADS;
        held.words[i] = *(const uint4 *)&from[(first_row + word / 4) * SIZE + k + word % 4 * 8];
    }
    return held;
}

static __device__ void put(__nv_bfloat16 *to, const tile &held)
{
    for (uint32_t i = 0; i < WORDS; i++) {
        uint32_t word = threadIdx.x + i * THREADS;
        *(uint4 *)&to[word / 4 * PITCH + word % 4 * 8] = held.words[i];
    }
}
#endif

static __global__ void __launch_bounds__(THREADS)
    multiply(const __nv_bfloat16 *a, const __nv_bfloat16 *b, float *c)
{
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800
    using namespace nvcuda::wmma;
    __shared__ __align__(128) __nv_bfloat16 rows[TILE * PITCH], columns[TILE * PITCH];
    fragment<accumulator, 16, 16, 16, float> sums[4][2];
    fragment<matrix_a, 16, 16, 16, __nv_bfloat16, row_major> left;
    fragment<matrix_b, 16, 16, 16, __nv_bfloat16, col_major> right[2];
    const uint32_t warp = threadIdx.x / 32, row = warp / 4 * 64, column = warp % 4 * 32;
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 2; j++)
            fill_fragment(sums[i][j], 0.0f);
    tile next_a = fetch(a, blockIdx.y * TILE, 0), next_b = fetch(b, blockIdx.x * TILE, 0);
    for (uint32_t k = 0; k < SIZE; k += STEP) {
        __syncthreads();
        put(rows, next_a);
        put(columns, next_b);
        __syncthreads();
        if (k + STEP < SIZE) {
            next_a = fetch(a, blockIdx.y * TILE, k + STEP);
            next_b = fetch(b, blockIdx.x * TILE, k + STEP);
        }
        for (uint32_t inner = 0; inner < STEP; inner += 16) {
            for (uint32_t j = 0; j < 2; j++)
                load_matrix_sync(right[j], &columns[(column + j * 16) * PITCH + inner], PITCH);
            for (uint32_t i = 0; i < 4; i++) {
                load_matrix_sync(left, &rows[(row + i * 16) * PITCH + inner], PITCH);
                for (uint32_t j = 0; j < 2; j++)
                    mma_sync(sums[i][j], left, right[j], sums[i][j]);
            }
        }
    }
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t j = 0; j < 2; j++)
            store_matrix_sync(
                &c[(blockIdx.y * TILE + row + i * 16) * SIZE + blockIdx.x * TILE + column + j * 16],
                sums[i][j], SIZE, mem_row_major);
#endif
}

struct matmul {
    __nv_bfloat16 *a, *b;
    float *c;
    cudaStream_t stream;
    cudaEvent_t begin, end;
};

extern "C" matmul *matmul_create(const char **why)
{
    int device, major;
    CUDA(cudaGetDevice(&device));
    CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
    if (major < 8) {
        *why = "this GPU has no bf16";
        return nullptr;
    }
    matmul *m = (matmul *)calloc(1, sizeof *m);
    if (m == nullptr)
        exit(2);
    const size_t elements = (size_t)SIZE * SIZE;
    CUDA(cudaMalloc(&m->a, elements * sizeof *m->a));
    CUDA(cudaMalloc(&m->b, elements * sizeof *m->b));
    CUDA(cudaMalloc(&m->c, elements * sizeof *m->c));
    CUDA(cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking));
    CUDA(cudaEventCreate(&m->begin));
    CUDA(cudaEventCreate(&m->end));
    CUDA(cudaMemsetAsync(m->c, 0, elements * sizeof *m->c, m->stream));
    fill<<<1024, THREADS, 0, m->stream>>>(m->a, m->b);
    CUDA(cudaGetLastError());
    CUDA(cudaStreamSynchronize(m->stream));
    return m;
}

extern "C" void matmul_destroy(matmul *m)
{
    CUDA(cudaStreamSynchronize(m->stream));
    CUDA(cudaEventDestroy(m->begin));
    CUDA(cudaEventDestroy(m->end));
    CUDA(cudaStreamDestroy(m->stream));
    CUDA(cudaFree(m->a));
    CUDA(cudaFree(m->b));
    CUDA(cudaFree(m->c));
    free(m);
}

extern "C" void matmul_start(matmul *m, uint32_t count)
{
    CUDA(cudaEventRecord(m->begin, m->stream));
    for (uint32_t i = 0; i < count; i++)
        multiply<<<dim3(SIZE / TILE, SIZE / TILE), THREADS, 0, m->stream>>>(m->a, m->b, m->c);
    CUDA(cudaGetLastError());
    CUDA(cudaEventRecord(m->end, m->stream));
}

extern "C" bool matmul_over(matmul *m)
{
    cudaError_t error = cudaEventQuery(m->end);
    if (error != cudaErrorNotReady)
        CUDA(error);
    return error == cudaSuccess;
}

extern "C" double matmul_seconds(matmul *m)
{
    float milliseconds;
    CUDA(cudaEventElapsedTime(&milliseconds, m->begin, m->end));
    return milliseconds / 1e3;
}

extern "C" bool matmul_right(matmul *m)
{
    bool right = true;
    for (uint32_t n = 0; right && n < SAMPLES; n++) {
        uint32_t at = (uint32_t)((n * 2654435761u) % (SIZE * SIZE)), row = at / SIZE,
                 column = at % SIZE;
        float got;
        int64_t want = 0;
        CUDA(cudaMemcpyAsync(&got, m->c + at, sizeof got, cudaMemcpyDeviceToHost, m->stream));
        CUDA(cudaStreamSynchronize(m->stream));
        for (uint32_t k = 0; k < SIZE; k++)
            want += element(0, row * SIZE + k) * element(1, column * SIZE + k);
        right = got == (float)want;
    }
    return right;
}
