// Images filtered along both axes, with the mean of what is left, and the way back, against float64: whole vectors and
// not, blocks that end within an image, bands as wide as the image, and each gradient alone.
#include <cmath>

#include "harness.h"
#include "reward/reward.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

/** A filter with `count` taps, from `from` to `to` places, in device memory. */
struct Axis {
  int count, from, to;
  Values starts;
  Input<float> taps;
  Input<int> first;

  Axis(int count, int from, int to)
      : count(count),
        from(from),
        to(to),
        starts(startsOf(count, from, to)),
        taps(uniform(count * to, -1, 1, 51)),
        first(starts) {}
  static Values startsOf(int count, int from, int to) {
    Values all;
    for (int i = 0; i < to; ++i) all.push_back((from - count) * (to - 1 - i) / (to > 1 ? to - 1 : 1));
    return all;
  }
  Band band() const { return {taps.data(), first.data(), count, from, to}; }
  /** y [outer, to, inner] of x [outer, from, inner]. */
  Values of(const Values& x, size_t inner) const {
    Values y(x.size() / from * to);
    for (size_t at = 0; at < y.size(); ++at) {
      const size_t outer = at / (inner * to), i = at / inner % to;
      for (int k = 0; k < count; ++k)
        y[at] += taps[k * to + i] * x[(outer * from + size_t(starts[i]) + k) * inner + at % inner];
    }
    return y;
  }
};

struct Shape {
  int images, channels, h, w, countY, toY, countX, toX;
};

template <class T>
void forward(const Shape& s) {
  const Axis alongY(s.countY, s.h, s.toY), alongX(s.countX, s.w, s.toX);
  const Filter filter = {s.images, s.channels, alongY.band(), alongX.band()};
  const Input<T> x(uniform(size_t(s.images) * s.h * s.w * s.channels, -1, 1, 52));
  const Values wanted = alongX.of(alongY.of(x.values(), size_t(s.w) * s.channels), s.channels);
  const size_t each = wanted.size() / s.images;
  Values levels(s.images);
  for (size_t i = 0; i < wanted.size(); ++i) levels[i / each] += std::abs(wanted[i]) / static_cast<double>(each);
  Output<float> y(wanted.size()), level(s.images), scratch(lowPassScratch(filter) / sizeof(float));
  check(lowPass(filter, x.data(), y.data(), level.data(), scratch.data(), nullptr));
  expectClose(y.values(), wanted, 3e-6, "y");
  expectClose(level.values(), levels, 3e-6, "level");
}

/** By y, by the level, or by both. */
void backward(const Shape& s, bool byY, bool byLevel) {
  const Axis alongY(s.countY, s.h, s.toY), alongX(s.countX, s.w, s.toX);
  const Filter filter = {s.images, s.channels, alongY.band(), alongX.band()};
  const size_t each = size_t(s.h) * s.w * s.channels;
  Values values = uniform(s.images * each, -1, 1, 53);
  values[0] = 0;  // has no slope
  const Input<float> y(values), dy(uniform(values.size(), -1, 1, 54)), dLevel(uniform(s.images, 1, 2, 55));
  Values slopes(values.size());
  for (size_t i = 0; i < slopes.size(); ++i) {
    const double sign = y[i] > 0 ? 1 : y[i] < 0 ? -1 : 0;
    slopes[i] = (byY ? dy[i] : 0) + (byLevel ? dLevel[i / each] * sign / static_cast<double>(each) : 0);
  }
  const Values wanted = alongY.of(alongX.of(slopes, s.channels), size_t(s.toX) * s.channels);
  Output<float> dx(wanted.size()), scratch(lowPassGradScratch(filter) / sizeof(float));
  check(lowPassGrad(filter, y.data(), byY ? dy.data() : nullptr, byLevel ? dLevel.data() : nullptr, dx.data(),
                    scratch.data(), nullptr));
  expectClose(dx.values(), wanted, 3e-6, "dx");
}

/** A band that reaches beyond the image reads its edge instead. */
void beyond() {
  const Axis alongY(3, 5, 2), alongX(2, 4, 2);
  for (int i = 0; i < 2; ++i) alongY.first[i] = i ? 1000000 : -1000000;
  alongX.first[1] = 3;
  const Filter filter = {1, 1, alongY.band(), alongX.band()};
  const Input<float> x(uniform(20, -1, 1, 56));
  Output<float> y(4), level(1), scratch(lowPassScratch(filter) / sizeof(float));
  check(lowPass(filter, x.data(), y.data(), level.data(), scratch.data(), nullptr));
}

const bool added = [] {
  const Shape shapes[] = {{1, 1, 1, 1, 1, 1, 1, 1},  {2, 3, 12, 9, 5, 4, 7, 3},    {1, 3, 4, 6, 3, 9, 6, 11},
                          {3, 8, 7, 16, 7, 2, 2, 5}, {1, 4, 16, 33, 4, 18, 5, 17}, {2, 5, 3, 40, 2, 3, 9, 31}};
  for (const Shape& s : shapes) {
    const std::string name = std::to_string(s.images) + " of " + std::to_string(s.h) + " x " + std::to_string(s.w) +
                             " x " + std::to_string(s.channels);
    addCase("f32 " + name, [=] { forward<float>(s); });
    addCase("bf16 " + name, [=] { forward<bf16>(s); });
    addCase("f16 " + name, [=] { forward<f16>(s); });
    addCase("gradient by both " + name, [=] { backward(s, true, true); });
    addCase("gradient by the level " + name, [=] { backward(s, false, true); });
    addCase("gradient by y " + name, [=] { backward(s, true, false); });
  }
  addCase("bands beyond the image", beyond);
  return true;
}();

}  // namespace
