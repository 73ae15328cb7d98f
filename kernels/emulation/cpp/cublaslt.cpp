// A libcublasLt.so over host memory: sums in float, one after the other, by the attributes of the descriptors that limbeck sets.
//
// What the real library would refuse or misread ends in a status: an attribute of another size, types that it has no kernels
// for, an algorithm of another product, a workspace smaller than the algorithm's. Status codes are cuBLAS's.
#include "machine.h"
#include "beside.h"

#include <cstdlib>
#include <vector>

using Status = int;

namespace {

enum : Status { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum : int { R_32F = 0, R_16F = 2, R_16BF = 14 };
enum : int { COMPUTE_32F = 68, EPILOGUE_DEFAULT = 1, EPILOGUE_BIAS = 4 };
constexpr size_t WORKSPACE = 4096; // what each algorithm asks for here

// Products that this thread has had made.
thread_local uint64_t made = 0;

struct Layout {
    int type;
    uint64_t rows, cols;
    int64_t leading;
};
struct Description {
    int compute, scale, transposed[2] = {0, 0}, epilogue = EPILOGUE_DEFAULT;
    const void* bias = nullptr;
};
struct Preference {
    uint64_t workspace = 0;
    uint32_t schemes = 7;
};
struct Algorithm {
    uint64_t data[8];
};
struct Heuristic {
    Algorithm algorithm;
    size_t workspace;
    Status status;
    float waves;
    int reserved[4];
};

template <class T> Status take(T& to, const void* from, size_t bytes) {
    if (bytes != sizeof(T)) return INVALID_VALUE;
    return std::memcpy(&to, from, bytes), SUCCESS;
}

float load(const void* from, int type, size_t i) {
    switch (type) {
    case R_16F: return emulation::from_half(static_cast<const uint16_t*>(from)[i]);
    case R_16BF: return emulation::from_bf16(static_cast<const uint16_t*>(from)[i]);
    default: return static_cast<const float*>(from)[i];
    }
}
void store(void* to, int type, size_t i, float x) {
    switch (type) {
    case R_16F: static_cast<uint16_t*>(to)[i] = emulation::to_half(x); break;
    case R_16BF: static_cast<uint16_t*>(to)[i] = emulation::to_bf16(x); break;
    default: static_cast<float*>(to)[i] = x;
    }
}

// A product as the descriptors say it: `depth` is 0 if they do not fit each other.
struct Product {
    uint64_t rows, cols, depth;

    Product(const Description& d, const Layout& a, const Layout& b, const Layout& out) {
        rows = d.transposed[0] ? a.cols : a.rows;
        cols = d.transposed[1] ? b.rows : b.cols;
        depth = d.transposed[0] ? a.rows : a.cols;
        const bool fits = depth == (d.transposed[1] ? b.cols : b.rows) && out.rows == rows && out.cols == cols;
        const bool leads = a.leading >= int64_t(a.rows) && b.leading >= int64_t(b.rows) && out.leading >= int64_t(out.rows);
        if (!fits || !leads || !rows || !cols) depth = 0;
    }
};

Algorithm algorithm_of(const Description& d, const Layout& a, const Layout& b, const Layout& out) {
    const uint64_t types = uint64_t(a.type) | uint64_t(b.type) << 8 | uint64_t(out.type) << 16;
    const uint64_t how = uint64_t(d.transposed[0]) | uint64_t(d.transposed[1]) << 1 | uint64_t(d.epilogue) << 2;
    return {{types, how, a.rows, a.cols, b.rows, b.cols, out.rows, out.cols}};
}

} // namespace

#define LIBRARY(name) extern "C" __attribute__((visibility("default"))) Status name

// EMULATED_CUBLASLT_BROKEN: a library that does not begin.
LIBRARY(cublasLtCreate)(void** handle) {
    if (std::getenv("EMULATED_CUBLASLT_BROKEN")) return NOT_INITIALIZED;
    return *handle = std::malloc(8), SUCCESS;
}
extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130000; }
LIBRARY(cublasLtDestroy)(void* handle) { return std::free(handle), SUCCESS; }

LIBRARY(cublasLtMatmulDescCreate)(void** out, int compute, int scale) {
    auto* d = new Description;
    d->compute = compute, d->scale = scale;
    return *out = d, SUCCESS;
}
LIBRARY(cublasLtMatmulDescDestroy)(void* description) { return delete static_cast<Description*>(description), SUCCESS; }
LIBRARY(cublasLtMatmulDescSetAttribute)(void* description, int attribute, const void* value, size_t bytes) {
    auto& d = *static_cast<Description*>(description);
    switch (attribute) {
    case 3: return take(d.transposed[0], value, bytes);
    case 4: return take(d.transposed[1], value, bytes);
    case 7: return take(d.epilogue, value, bytes);
    case 8: return take(d.bias, value, bytes);
    default: return INVALID_VALUE;
    }
}

LIBRARY(cublasLtMatrixLayoutCreate)(void** out, int type, uint64_t rows, uint64_t cols, int64_t leading) {
    return *out = new Layout{type, rows, cols, leading}, SUCCESS;
}
LIBRARY(cublasLtMatrixLayoutDestroy)(void* layout) { return delete static_cast<Layout*>(layout), SUCCESS; }

LIBRARY(cublasLtMatmulPreferenceCreate)(void** out) { return *out = new Preference, SUCCESS; }
LIBRARY(cublasLtMatmulPreferenceDestroy)(void* preference) { return delete static_cast<Preference*>(preference), SUCCESS; }
LIBRARY(cublasLtMatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value, size_t bytes) {
    auto& p = *static_cast<Preference*>(preference);
    switch (attribute) {
    case 1: return take(p.workspace, value, bytes);
    case 3: return take(p.schemes, value, bytes);
    default: return INVALID_VALUE;
    }
}

LIBRARY(cublasLtMatmulAlgoGetHeuristic)(void*, void* description, void* of_a, void* of_b, void* of_c, void* of_out, void* preference,
                                        int wanted, Heuristic* found, int* count) {
    const auto& d = *static_cast<Description*>(description);
    const auto &a = *static_cast<Layout*>(of_a), &b = *static_cast<Layout*>(of_b), &out = *static_cast<Layout*>(of_out);
    const auto& p = *static_cast<Preference*>(preference);
    *count = 0;
    if (wanted < 1 || of_c != of_out || !Product(d, a, b, out).depth) return INVALID_VALUE;
    // The table of cublasLtMatmul for sums in float: a and b of one type, the result of theirs or float. A bias is of the result's
    // type. There is none for a single column, so that limbeck sees a refusal.
    const bool known = a.type == R_32F || a.type == R_16F || a.type == R_16BF;
    const bool types = known && a.type == b.type && (out.type == a.type || out.type == R_32F);
    const bool epilogue = d.epilogue == EPILOGUE_DEFAULT || (d.epilogue == EPILOGUE_BIAS && d.bias);
    if (d.compute != COMPUTE_32F || d.scale != R_32F || !types || !epilogue || p.workspace < WORKSPACE) return NOT_SUPPORTED;
    if (out.cols == 1) return NOT_SUPPORTED;
    *found = {algorithm_of(d, a, b, out), WORKSPACE, SUCCESS, 1.0f, {}};
    return *count = 1, SUCCESS;
}

LIBRARY(cublasLtMatmul)(void* handle, void* description, const float* alpha, const void* a, void* of_a, const void* b, void* of_b,
                        const float* beta, const void* c, void* of_c, void* out, void* of_out, const Algorithm* algorithm, void* workspace,
                        size_t bytes, void* stream) {
    const auto& d = *static_cast<Description*>(description);
    const auto &la = *static_cast<Layout*>(of_a), &lb = *static_cast<Layout*>(of_b), &lo = *static_cast<Layout*>(of_out);
    const Product product(d, la, lb, lo);
    const Algorithm own = algorithm_of(d, la, lb, lo);
    const bool right = handle && product.depth && of_c == of_out && c == out && !std::memcmp(&own, algorithm, sizeof own);
    if (!right || bytes < WORKSPACE || !workspace) return INVALID_VALUE;
    const float scale = *alpha, kept = *beta;
    emulation::Work work = [=, d = d, la = la, lb = lb, lo = lo] {
        std::memset(workspace, 0xff, bytes);
        std::vector<float> column(product.depth);
        for (uint64_t j = 0; j < product.cols; j++) {
            for (uint64_t k = 0; k < product.depth; k++)
                column[k] = load(b, lb.type, d.transposed[1] ? k * lb.leading + j : j * lb.leading + k);
            for (uint64_t i = 0; i < product.rows; i++) {
                float sum = 0.0f;
                for (uint64_t k = 0; k < product.depth; k++)
                    sum += load(a, la.type, d.transposed[0] ? i * la.leading + k : k * la.leading + i) * column[k];
                const size_t at = j * lo.leading + i;
                sum *= scale;
                if (kept != 0.0f) sum += kept * load(c, lo.type, at);
                if (d.epilogue == EPILOGUE_BIAS) sum += load(d.bias, lo.type, i);
                store(out, lo.type, at, sum);
            }
        }
    };
    if (emulation::submit_to_driver(stream, work)) return EXECUTION_FAILED;
    return made++, SUCCESS;
}

extern "C" __attribute__((visibility("default"))) uint64_t emulation_products_made() { return made; }
