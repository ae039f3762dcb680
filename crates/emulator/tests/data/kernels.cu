// Test kernels of the emulator, compiled with nvcc 13.0 (13.0.88):
//   nvcc -O3 -std=c++17 -ptx -arch=compute_80 kernels.cu -o kernels.ptx
#include <cuda_bf16.h>
#include <cstdint>
using bf16 = __nv_bfloat16;
struct alignas(16) Vec8 {
    __nv_bfloat162 v[4];
};

__device__ __forceinline__ float sigmoid(float x) {
    return 1.f / (1.f + __expf(-x));
}

template <class I>
__device__ __forceinline__ void swiglu(const bf16 *e, const bf16 *g, bf16 *h, I n) {
    I i = ((I)blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if (i + 8 <= n) {
        Vec8 a = *(const Vec8 *)(e + i), b = *(const Vec8 *)(g + i), o;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float2 x = __bfloat1622float2(a.v[j]), y = __bfloat1622float2(b.v[j]);
            o.v[j] = __floats2bfloat162_rn(x.x * sigmoid(x.x) * y.x, x.y * sigmoid(x.y) * y.y);
        }
        *(Vec8 *)(h + i) = o;
    } else {
        for (; i < n; ++i) {
            float x = __bfloat162float(e[i]);
            h[i] = __float2bfloat16_rn(x * sigmoid(x) * __bfloat162float(g[i]));
        }
    }
}
extern "C" __global__ void swiglu_forward(const bf16 *e, const bf16 *g, bf16 *h, int64_t n) {
    swiglu<int64_t>(e, g, h, n);
}
extern "C" __global__ void swiglu_forward_narrow(const bf16 *e, const bf16 *g, bf16 *h, uint32_t n) {
    // Offsets are signed 32-bit numbers, as if a launcher had forgotten to ask for wide ones.
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x) * 8;
    if ((uint32_t)i < n) {
        for (int j = 0; j < 8; ++j) h[i + j] = __float2bfloat16_rn(__bfloat162float(e[i + j]) * __bfloat162float(g[i + j]));
    }
}

__device__ __forceinline__ float block_sum(float v, float *shared) {
#pragma unroll
    for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
    if ((threadIdx.x & 31) == 0) shared[threadIdx.x >> 5] = v;
    __syncthreads();
    v = threadIdx.x < (blockDim.x >> 5) ? shared[threadIdx.x] : 0.f;
    if (threadIdx.x < 32) {
#pragma unroll
        for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(~0u, v, o);
        if (threadIdx.x == 0) shared[0] = v;
    }
    __syncthreads();
    return shared[0];
}

extern "C" __global__ void __launch_bounds__(1024)
    rms_norm_forward(const bf16 *x, const bf16 *w, bf16 *y, float *rstd, int columns, float eps) {
    __shared__ float shared[32];
    const bf16 *xr = x + (int64_t)blockIdx.x * columns;
    bf16 *yr = y + (int64_t)blockIdx.x * columns;
    float s = 0.f;
    for (int i = threadIdx.x * 8; i < columns; i += blockDim.x * 8) {
        Vec8 a = *(const Vec8 *)(xr + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float2 f = __bfloat1622float2(a.v[j]);
            s = fmaf(f.x, f.x, s);
            s = fmaf(f.y, f.y, s);
        }
    }
    s = block_sum(s, shared);
    float r = rsqrtf(s / columns + eps);
    if (threadIdx.x == 0) rstd[blockIdx.x] = r;
    for (int i = threadIdx.x * 8; i < columns; i += blockDim.x * 8) {
        Vec8 a = *(const Vec8 *)(xr + i), b = *(const Vec8 *)(w + i);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            float2 f = __bfloat1622float2(a.v[j]), g = __bfloat1622float2(b.v[j]);
            a.v[j] = __floats2bfloat162_rn(f.x * r * g.x, f.y * r * g.y);
        }
        *(Vec8 *)(yr + i) = a;
    }
}

__device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}
__device__ __forceinline__ void copy16(void *s, const void *g, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(s)), "l"(g), "r"(bytes));
}
__device__ __forceinline__ void load_matrix(uint32_t *r, const void *p) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(p)));
}
__device__ __forceinline__ void mma(float *d, const uint32_t *a, const uint32_t *b) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
constexpr int BM = 64, BN = 64, BK = 32;
__device__ __forceinline__ int swizzle(int r, int c) {
    return r * BK + ((((c >> 3) ^ ((r >> 1) & 3)) << 3) | (c & 7));
}
// C[M,N] = A[M,K] * B[N,K]^T in tiles of 64x64x32, two stages.
extern "C" __global__ void __launch_bounds__(128)
    matrix_product(const bf16 *__restrict__ A, const bf16 *__restrict__ B, bf16 *__restrict__ C, int M, int N, int K) {
    __shared__ __align__(16) bf16 sA[2][BM * BK], sB[2][BN * BK];
    int t = threadIdx.x, lane = t & 31, w = t >> 5, wm = (w >> 1) * 32, wn = (w & 1) * 32;
    int m0 = blockIdx.y * BM, n0 = blockIdx.x * BN;
    float acc[2][4][4] = {};
    auto load = [&](int st, int k0) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            int c = t + i * 128, r = c >> 2, k = (c & 3) * 8;
            bool pa = m0 + r < M && k0 + k < K, pb = n0 + r < N && k0 + k < K;
            copy16(&sA[st][swizzle(r, k)], pa ? A + (int64_t)(m0 + r) * K + k0 + k : A, pa ? 16 : 0);
            copy16(&sB[st][swizzle(r, k)], pb ? B + (int64_t)(n0 + r) * K + k0 + k : B, pb ? 16 : 0);
        }
        asm volatile("cp.async.commit_group;\n");
    };
    int nk = (K + BK - 1) / BK;
    load(0, 0);
    for (int kt = 0; kt < nk; ++kt) {
        if (kt + 1 < nk) {
            load((kt + 1) & 1, (kt + 1) * BK);
            asm volatile("cp.async.wait_group 1;\n");
        } else {
            asm volatile("cp.async.wait_group 0;\n");
        }
        __syncthreads();
        const bf16 *a = sA[kt & 1], *b = sB[kt & 1];
#pragma unroll
        for (int kk = 0; kk < BK; kk += 16) {
            uint32_t ra[2][4], rb[4][2];
#pragma unroll
            for (int i = 0; i < 2; ++i) load_matrix(ra[i], a + swizzle(wm + i * 16 + (lane & 15), kk + (lane >> 4) * 8));
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                uint32_t r[4];
                load_matrix(r, b + swizzle(wn + j * 16 + (lane & 7) + ((lane >> 4) << 3), kk + ((lane >> 3) & 1) * 8));
                rb[2 * j][0] = r[0];
                rb[2 * j][1] = r[1];
                rb[2 * j + 1][0] = r[2];
                rb[2 * j + 1][1] = r[3];
            }
#pragma unroll
            for (int i = 0; i < 2; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) mma(acc[i][j], ra[i], rb[j]);
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                int r = m0 + wm + i * 16 + (lane >> 2) + h * 8, c = n0 + wn + j * 8 + (lane & 3) * 2;
                if (r < M && c < N)
                    *reinterpret_cast<__nv_bfloat162 *>(C + (int64_t)r * N + c) =
                        __floats2bfloat162_rn(acc[i][j][2 * h], acc[i][j][2 * h + 1]);
            }
}

template <bool FENCE>
__device__ __forceinline__ void sum_body(const float *x, float *partial, float *out, unsigned *count, int n) {
    __shared__ float shared[32];
    __shared__ bool last;
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    float s = block_sum(i < n ? x[i] : 0.f, shared);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = s;
        if (FENCE) __threadfence();
        last = atomicAdd(count, 1u) == gridDim.x - 1;
        if (FENCE) __threadfence();
    }
    __syncthreads();
    if (last && threadIdx.x == 0) {
        float all = 0.f;
        for (int b = 0; b < gridDim.x; ++b) all += partial[b];
        *out = all;
    }
}
extern "C" __global__ void sum(const float *x, float *partial, float *out, unsigned *count, int n) {
    sum_body<true>(x, partial, out, count, n);
}
extern "C" __global__ void sum_without_fence(const float *x, float *partial, float *out, unsigned *count, int n) {
    sum_body<false>(x, partial, out, count, n);
}

__constant__ float TABLE[8] = {-1.f, -0.5f, -0.25f, 0.f, 0.25f, 0.5f, 0.75f, 1.f};
extern "C" __global__ void look_up(const uint8_t *q, float *out, uint8_t *reversed) {
    __shared__ uint8_t shared[64];
    int i = threadIdx.x, lane = i & 31;
    uint8_t code = q[i];
    out[2 * i] = TABLE[(code >> 4) & 7];
    out[2 * i + 1] = TABLE[code & 7];
    shared[i] = code;
    __syncwarp();
    reversed[i] = shared[i - lane + 31 - lane];
}

__device__ __noinline__ uint32_t mixed(uint32_t x) {
    return x * 2654435761u ^ (x >> 3);
}
extern "C" __global__ void local_and_calls(uint32_t *out, uint32_t shift) {
    uint32_t i = threadIdx.x, table[8];
    for (uint32_t j = 0; j < 8; ++j) table[j] = j * j + i;
    uint32_t picked = table[(i + shift) % 8], result;
    switch (i % 7) {
    case 0: result = picked + 11; break;
    case 1: result = picked * 3; break;
    case 2: result = picked ^ 0x55; break;
    case 3: result = mixed(picked); break;
    case 4: result = picked >> 1; break;
    case 5: result = mixed(mixed(picked)); break;
    default: result = 7;
    }
    out[i] = result;
}

extern "C" __global__ void sine(const float *x, float *out) {
    int i = threadIdx.x;
    sincosf(x[i], &out[2 * i], &out[2 * i + 1]);
}
