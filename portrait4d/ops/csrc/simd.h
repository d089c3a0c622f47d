// Sixteen float32 numbers at once by the compiler's vector extension; any instruction set serves, AVX-512 best.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace portrait4d {

constexpr int kLanes = 16;
constexpr float kRounder = 12582912.0f;  // 1.5 * 2^23: adding and subtracting it rounds to the nearest integer

typedef float Vector __attribute__((vector_size(4 * kLanes)));
typedef int32_t Integers __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));
typedef double Doubles __attribute__((vector_size(8 * kLanes)));

static inline Vector broadcast(float x) { return x - Vector{}; }

static inline Vector load(const float* source) {
  Vector x;
  std::memcpy(&x, source, sizeof x);
  return x;
}

static inline void store(float* target, Vector x) { std::memcpy(target, &x, sizeof x); }

// The same for numbers in bfloat16, the upper halves of float32; rounds to the nearest, halves to even.
static inline Vector load(const uint16_t* source) {
  Halves halves;
  std::memcpy(&halves, source, sizeof halves);
  return reinterpret_cast<Vector>(__builtin_convertvector(halves, Integers) << 16);
}

static inline void store(uint16_t* target, Vector x) {
#if defined(__AVX512BF16__) && defined(__AVX512VL__)
  const __m256bh rounded = _mm512_cvtneps_pbh(reinterpret_cast<__m512>(x));
#else
  const Integers bits = reinterpret_cast<Integers>(x), odd = (bits >> 16) & 1;
  const Halves rounded = __builtin_convertvector(x != x ? bits >> 16 : (bits + 0x7fff + odd) >> 16, Halves);
#endif
  std::memcpy(target, &rounded, sizeof rounded);
}

// Loads the first `count` numbers, zeros after them.
static inline Vector load_first(const float* source, int count) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), source));
#else
  Vector x = {};
  std::memcpy(&x, source, sizeof(float) * count);
  return x;
#endif
}

// a * b + c, rounded once where the machine can.
static inline Vector fused(Vector a, Vector b, Vector c) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(
      _mm512_fmadd_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b), reinterpret_cast<__m512>(c)));
#elif defined(__FMA__)
  __m256 x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof a);
  std::memcpy(y, &b, sizeof b);
  std::memcpy(z, &c, sizeof c);
  for (int half = 0; half < 2; ++half) z[half] = _mm256_fmadd_ps(x[half], y[half], z[half]);
  std::memcpy(&c, z, sizeof c);
  return c;
#else
  return a * b + c;
#endif
}

// Of two numbers; of a number and a NaN, the second of both.
static inline Vector larger(Vector a, Vector b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a > b ? a : b;
#endif
}

static inline Vector smaller(Vector a, Vector b) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vector>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
#else
  return a < b ? a : b;
#endif
}

// 1 / x, relative error below 1e-7; zero where it is below 2^-126.
static inline Vector reciprocal(Vector x) {
#if defined(__AVX512F__)
  const Vector guess = reinterpret_cast<Vector>(_mm512_rcp14_ps(reinterpret_cast<__m512>(x)));
  return fused(guess, fused(-x, guess, broadcast(1)), guess);
#else
  return 1.0f / x;
#endif
}

static inline Vector minus_magnitude(Vector x) {
  return reinterpret_cast<Vector>(reinterpret_cast<Integers>(x) | reinterpret_cast<Integers>(broadcast(-0.0f)));
}

static inline Integers truncated(Vector x) { return __builtin_convertvector(x, Integers); }

static inline bool any(Integers mask) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(mask), reinterpret_cast<__m512i>(mask)) != 0;
#else
  int32_t parts[kLanes], found = 0;
  std::memcpy(parts, &mask, sizeof parts);
  for (int32_t part : parts) found |= part;
  return found != 0;
#endif
}

static inline float sum(Vector x) {
  float parts[kLanes], total = 0;
  store(parts, x);
  for (float part : parts) total += part;
  return total;
}

// The numbers of two vectors, one after the other, at these places.
static inline Vector gathered(Vector a, Vector b, Integers places) {
#if defined(__clang__)
  Vector result;
  for (int lane = 0; lane < kLanes; ++lane) result[lane] = places[lane] < kLanes ? a[places[lane]] : b[places[lane] - kLanes];
  return result;
#else
  return __builtin_shuffle(a, b, places);
#endif
}

// Sums of the neighbouring halves of two vectors' groups of 2 * STEP numbers: one level of `sums`.
template <int STEP>
static inline Vector add_halves(Vector a, Vector b) {
  Integers first, second;
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / STEP, start = group * 2 * STEP + lane % STEP;
    first[lane] = start;
    second[lane] = start + STEP;
  }
  return gathered(a, b, first) + gathered(a, b, second);
}

// The sums of sixteen vectors, in order.
static inline Vector sums(const float (&rows)[kLanes][kLanes]) {
  Vector x[kLanes];
  for (int k = 0; k < 8; ++k) x[k] = add_halves<8>(load(rows[2 * k]), load(rows[2 * k + 1]));
  for (int k = 0; k < 4; ++k) x[k] = add_halves<4>(x[2 * k], x[2 * k + 1]);
  for (int k = 0; k < 2; ++k) x[k] = add_halves<2>(x[2 * k], x[2 * k + 1]);
  return add_halves<1>(x[0], x[1]);
}

// Evaluates a polynomial, coefficients in descending order.
template <int COUNT>
static inline Vector polynomial(const float (&coefficients)[COUNT], Vector x) {
  Vector result = broadcast(coefficients[0]);
  for (int k = 1; k < COUNT; ++k) result = fused(result, x, broadcast(coefficients[k]));
  return result;
}

struct VectorMath {
  using Number = Vector;

  static inline Vector broadcast(float x) { return portrait4d::broadcast(x); }

  // exp(n ln 2 + r) = 2^n p(r), relative error of p 2e-9; results below 2^-126 become 2^-126. NaN stays NaN.
  static inline Vector exp(Vector x) {
    x = smaller(broadcast(88.7f), larger(broadcast(-87.3f), x));
    const Vector shifted = fused(x, broadcast(1.44269504f), broadcast(kRounder));
    const Vector n = shifted - kRounder;
    const Vector r = fused(n, broadcast(2.12194440e-4f), fused(n, broadcast(-0.693359375f), x));
    const float coefficients[] = {1.383684561e-03f, 8.374815802e-03f, 4.166822558e-02f, 1.666642017e-01f,
                                  4.999999208e-01f, 1.000000036e+00f, 1.0f};
    const Integers exponent = (reinterpret_cast<Integers>(shifted) << 23);
    return reinterpret_cast<Vector>(reinterpret_cast<Integers>(polynomial(coefficients, r)) + exponent);
  }

  // log(1 + y) of y in [0, 1], relative error 3e-8.
  static inline Vector log1p_of_unit(Vector y) {
    const float coefficients[] = {5.232687883e-03f, -2.950521320e-02f, 7.822591022e-02f, -1.366324226e-01f,
                                  1.910600510e-01f, -2.484298179e-01f, 3.331909675e-01f, -4.999949314e-01f,
                                  9.999999699e-01f};
    return y * polynomial(coefficients, y);
  }

  static inline Vector softplus(Vector x) {
    return larger(Vector{}, x) + log1p_of_unit(exp(minus_magnitude(x)));
  }

  static inline Vector sigmoid(Vector x) { return reciprocal(1.0f + exp(-x)); }

  // Of numbers below 2^22.
  static inline Vector floor(Vector x) {
    const Vector rounded = (x + kRounder) - kRounder;
    return rounded > x ? rounded - 1.0f : rounded;
  }
};

}  // namespace portrait4d
