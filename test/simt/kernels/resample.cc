// Resizing and its adjoint against weights worked out in float64 from the positions themselves.
#include "resample/resample.h"

#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

double kernel(Filter filter, bool antialias, double x) {
  x = std::abs(x);
  if (filter == Filter::bilinear) return x < 1 ? 1 - x : 0;
  const double a = antialias ? -0.5 : -0.75;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? ((x - 5) * x + 8) * a * x - 4 * a : 0;
}

/** The weights [out, in] of one axis. */
std::vector<Values> weightsOf(Filter filter, bool antialias, int in, int out) {
  std::vector<Values> all(out, Values(in));
  const double ratio = static_cast<double>(in) / out, stretch = antialias && ratio > 1 ? ratio : 1;
  for (int i = 0; i < out; ++i) {
    if (filter == Filter::nearest) {
      all[i][i * in / out] = 1;
      continue;
    }
    const double centre = (i + 0.5) * ratio;
    double total = 0;
    for (int j = antialias ? 0 : -2; j < (antialias ? in : in + 2); ++j) {
      const double weight = kernel(filter, antialias, (j + 0.5 - centre) / stretch);
      all[i][std::min(std::max(j, 0), in - 1)] += weight;
      total += weight;
    }
    for (double& weight : all[i]) weight /= antialias ? total : 1;
  }
  return all;
}

struct Case {
  Filter filter;
  bool antialias;
  unsigned images;
  int height[2], width[2];
  unsigned channels;
};

template <class T>
void resized(const Case& c, bool adjoint) {
  const std::vector<Values> down = weightsOf(c.filter, c.antialias, c.height[0], c.height[1]),
                            across = weightsOf(c.filter, c.antialias, c.width[0], c.width[1]);
  const int from = adjoint, to = !adjoint;
  const int h = c.height[from], w = c.width[from], oh = c.height[to], ow = c.width[to];
  const ResizeShape shape = makeResize(c.filter, c.antialias, adjoint, c.images, c.height, c.width, c.channels);
  const Input<T> x(uniform(size_t{c.images} * h * w * c.channels, -1, 1, 21));
  const Input<float> scratch(Values(resizeScratch(shape) / 4, NAN));
  Output<T> y(size_t{c.images} * oh * ow * c.channels);
  check(resize(shape, x.data(), y.data(), scratch.data(), nullptr));
  const Values xs = x.values();
  Values wanted(y.size()), naive(y.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const size_t pixel = i / c.channels, image = pixel / (oh * ow), oy = pixel / ow % oh, ox = pixel % ow;
    for (int iy = 0; iy < h; ++iy)
      for (int ix = 0; ix < w; ++ix) {
        const double weight = adjoint ? down[iy][oy] * across[ix][ox] : down[oy][iy] * across[ox][ix];
        const double value = xs[((image * h + iy) * w + ix) * c.channels + i % c.channels];
        wanted[i] += weight * value;
        naive[i] = rounded<T>(naive[i] + rounded<T>(weight * value));
      }
  }
  if (sizeof(T) == 4) return expectClose(y.values(), wanted, 3e-6, "y");
  expectNoWorse(y.values(), wanted, naive, adjoint ? 3 : 2, "y");
}

/** What no weight reaches has no part in the result, not even where it is no number. */
void apart() {
  const ResizeShape shape = makeResize(Filter::bilinear, false, false, 1, {1, 1}, {6, 3}, 1);
  const Input<float> x({1, 3, NAN, 5, 7, INFINITY}), scratch(Values(resizeScratch(shape) / 4, NAN));
  const ResizeShape wide = makeResize(Filter::bilinear, true, false, 1, {1, 1}, {3, 6}, 1);
  const Input<float> few({1, NAN, 2}), more(Values(resizeScratch(wide) / 4, NAN));
  Output<float> y(3), z(6);
  check(resize(shape, x.data(), y.data(), scratch.data(), nullptr));
  check(resize(wide, few.data(), z.data(), more.data(), nullptr));
  if (y[0] != 2 || !std::isnan(y[1]) || !std::isinf(y[2])) fail("%g %g %g", y[0], y[1], y[2]);
  if (z[0] != 1 || z[5] != 2) fail("%g and %g", z[0], z[5]);
}

template <class T>
void add(const std::string& type) {
  struct Sizes {
    const char* name;
    int height[2], width[2];
  };
  const Sizes all[] = {
      {"up", {5, 9}, {7, 16}},      {"twice", {4, 8}, {3, 6}},        {"down", {11, 4}, {9, 7}},
      {"half", {8, 4}, {6, 3}},     {"down and up", {10, 3}, {3, 8}}, {"one row", {1, 1}, {13, 5}},
      {"from one", {1, 3}, {1, 2}}, {"to one", {6, 1}, {5, 1}},       {"much smaller", {29, 2}, {31, 3}},
  };
  const std::pair<const char*, Case> filters[] = {
      {"nearest", {Filter::nearest, false, 2, {}, {}, 3}},     {"bilinear", {Filter::bilinear, false, 2, {}, {}, 3}},
      {"bilinear AA", {Filter::bilinear, true, 2, {}, {}, 3}}, {"bicubic", {Filter::bicubic, false, 2, {}, {}, 3}},
      {"bicubic AA", {Filter::bicubic, true, 2, {}, {}, 3}},
  };
  for (const auto& [name, filter] : filters)
    for (const Sizes& sizes : all)
      for (const bool adjoint : {false, true}) {
        if (filter.filter == Filter::nearest && !adjoint) continue;
        Case c = filter;
        std::copy(sizes.height, sizes.height + 2, c.height);
        std::copy(sizes.width, sizes.width + 2, c.width);
        const std::string full = type + " " + name + ", " + sizes.name + (adjoint ? ", adjoint" : "");
        addCase(full, [=] { resized<T>(c, adjoint); });
        if (sizes.name != std::string("down and up")) continue;
        c.channels = 24;
        addCase(full + ", vectors", [=] { resized<T>(c, adjoint); });
      }
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  addCase("zero weights", apart);
  return true;
}();

}  // namespace
