// A libnvrtc.so that compiles nothing: its image names the source and the type, and the stand-in driver has the kernels.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {
struct Program {
    std::string name, text, image, log;
};
} // namespace

#define NVRTC(name) extern "C" __attribute__((visibility("default"))) int name

NVRTC(nvrtcVersion)(int* major, int* minor) { return *major = 13, *minor = 0, 0; }
NVRTC(nvrtcCreateProgram)(void** out, const char* text, const char* name, int, const char* const*, const char* const*) {
    return *out = new Program{name ? name : "", text, "", ""}, 0;
}
NVRTC(nvrtcDestroyProgram)(void** program) { return delete static_cast<Program*>(*program), *program = nullptr, 0; }
NVRTC(nvrtcCompileProgram)(void* program, int count, const char* const* options) {
    Program& p = *static_cast<Program*>(program);
    const char* type = "float";
    for (int i = 0; i < count; i++)
        if (!std::strncmp(options[i], "-DReal=", 7)) type = options[i] + 7;
    // EMULATED_COMPILE_ERROR names a source that does not compile.
    const char* broken = std::getenv("EMULATED_COMPILE_ERROR");
    if (broken && p.name == broken) return p.log = p.name + "(1): error: as asked for", 6;
    p.image = "emulated " + p.name + " " + type;
    return 0;
}
NVRTC(nvrtcGetCUBINSize)(void* program, size_t* bytes) { return *bytes = static_cast<Program*>(program)->image.size() + 1, 0; }
NVRTC(nvrtcGetCUBIN)(void* program, char* out) { return std::strcpy(out, static_cast<Program*>(program)->image.c_str()), 0; }
NVRTC(nvrtcGetProgramLogSize)(void* program, size_t* bytes) { return *bytes = static_cast<Program*>(program)->log.size() + 1, 0; }
NVRTC(nvrtcGetProgramLog)(void* program, char* out) { return std::strcpy(out, static_cast<Program*>(program)->log.c_str()), 0; }
extern "C" __attribute__((visibility("default"))) const char* nvrtcGetErrorString(int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_SUCCESS";
}
