// Checks the kernel of batchnorm.h with the float32 test vectors that `bn-spec vectors export DIR` wrote:
//
//     c++ -std=c++11 -O2 -o check check.cpp && ./check DIR
//
// docs/vectors.md describes the files. Exit codes: 0 all as expected, 1 something is not, 2 the vectors cannot be read.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>
#include "batchnorm.h"

int main(int argc, char **argv) try {
    std::string folder = argc == 2 ? argv[1] : ".", word, vector, dtype, kind, weight, name;
    std::ifstream text(folder + "/manifest.txt"), file(folder + "/arrays.safetensors", std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    std::map<std::string, std::vector<float>> tensors; // of a call, contiguous
    auto in = [&](const char *which) { return tensors.count(which) ? tensors[which].data() : nullptr; };
    auto out = [&](const char *which, long size) { return tensors[which].resize(size), tensors[which].data(); };
    long version = 0, c = 0, training = 1, before, after, n = 0, p = 0, place, elements = 0, wrong = 0;
    double eps = 0, momentum = 0;
    if (!(text >> word >> version) || version != 1) return std::puts("usage: check DIR (of vectors, version 1)"), 2;
    while (text >> word) {
        if (word == "vector") {
            text >> vector >> dtype >> c;
        } else if (word == "call") {
            text >> kind >> training >> eps >> weight >> before >> after;
            momentum = weight == "none" ? 1.0 / (after > 0 ? after : 1) : std::stod(weight);
            tensors.clear();
        } else if (word == "tensor") { // strided, of 1 or 4 dimensions
            long ndim, s[4] = {1, 1, 1, 1}, t[4] = {0, 0, 0, 0};
            text >> name >> word >> place >> ndim;
            for (long d = 0; d < 2 * ndim; d++) text >> (d < ndim ? s[d] : t[d - ndim]);
            if (name == "x") n = s[0], p = s[2] * s[3];
            float *to = out(name.c_str(), s[0] * s[1] * s[2] * s[3]), *from = (float *)&bytes.at(place);
            for (long i = 0; dtype == "float32" && i < s[0] * s[1] * s[2] * s[3]; i++)
                to[i] = from[i / (s[1] * s[2] * s[3]) * t[0] + i / (s[2] * s[3]) % s[1] * t[1] +
                             i / s[3] % s[2] * t[2] + i % s[3] * t[3]];
        } else if (word == "run" && dtype == "float32" && kind == "forward") {
            forward(in("x"), n, c, p, in("weight"), in("bias"), in("running_mean"), in("running_var"), training,
                    momentum, eps, out("output", n * c * p));
        } else if (word == "run" && dtype == "float32") {
            backward(in("dy"), in("x"), n, c, p, in("weight"), in("running_mean"), in("running_var"), training, eps,
                     out("grad_input", n * c * p), out("grad_weight", c), out("grad_bias", c));
        } else if (word == "expect") {
            long size, bound, judged;
            text >> name >> size >> place >> bound >> judged;
            for (long i = 0; i < size && dtype == "float32"; i++) {
                double value = ((double *)&bytes.at(place))[i], most = ((double *)&bytes.at(bound))[i];
                double got = in(name.c_str())[i];
                if (bytes.at(judged + i) && ++elements && !(std::fabs(got - value) <= most) && wrong++ < 10)
                    std::printf("%s %s[%ld]: %.9g +- %.2g, got %.9g\n", vector.c_str(), name.c_str(), i, value, most, got);
            }
        }
        if (!text) throw std::runtime_error("manifest.txt ends too early");
    }
    std::printf("%ld of %ld elements are wrong\n", wrong, elements);
    return wrong > 0 || !elements;
} catch (const std::exception &error) {
    return std::printf("cannot read the vectors: %s\n", error.what()), 2;
}
