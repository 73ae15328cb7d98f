// Numbers of 16 bits, rounded to the nearest and of two the even one.
#include "machine.h"

namespace emulation {

uint16_t to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fff;
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float from_half(uint16_t bits) {
    const uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    uint32_t wide = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13;
    float x;
    std::memcpy(&x, &wide, 4);
    if (exponent) return x;
    const float small = float(fraction) * 0x1p-24f; // below the normal numbers
    return sign ? -small : small;
}

uint16_t to_half(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float a = std::fabs(x);
    if (std::isnan(x)) return 0x7fff;
    if (a >= 65520.0f) return sign | 0x7c00;
    if (a < std::ldexp(1.0f, -14)) return sign | uint16_t(std::nearbyint(std::ldexp(a, 24))); // 1024 is the smallest normal
    int exponent;
    const float m = std::frexp(a, &exponent); // a = m · 2^exponent, m in [0.5, 1)
    const int fraction = int(std::nearbyint(std::ldexp(m, 11)));
    return sign | uint16_t(((exponent + 13) << 10) + fraction);
}

} // namespace emulation
