// Z-buffer rasteriser: for every pixel centre, the index of the nearest triangle that covers it.
// Knows nothing of cameras, textures, gradients or torch. native/raster_torch.py is its twin and must follow
// the same arithmetic, operation by operation, in double precision; then the two agree bit for bit.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <thread>
#include <vector>

namespace nb = nanobind;

namespace {

constexpr int64_t kBandRows = 16;          // rows a task owns; its depth buffer then stays in the first cache
constexpr int64_t kTrianglesPerTask = 4096;

// Pixel bounds of a triangle, inclusive; row0 > row1 marks a triangle that cannot be seen.
struct Bounds {
    int32_t column0, column1, row0, row1;
};

constexpr Bounds kUnseen{0, -1, 0, -1};

struct Point {
    double x, y, z;
};

Point point_at(const float* vertices, int32_t index) {
    const float* p = vertices + 3 * static_cast<int64_t>(index);
    return {p[0], p[1], p[2]};
}

// Twice the signed area of (p, a, b). Swapping a and b gives the exact negative, so along a shared edge one
// triangle sees e and its neighbour -e.
double edge(const Point& a, const Point& b, double px, double py) {
    return (a.x - px) * (b.y - py) - (a.y - py) * (b.x - px);
}

// Top-left rule for a triangle whose area is positive where y points down: a pixel centre that lies exactly on
// an edge belongs to the triangle that has it as a left or top edge.
bool owns_edge(const Point& from, const Point& to, double orientation) {
    const double dx = orientation * (to.x - from.x);
    const double dy = orientation * (to.y - from.y);
    return dy < 0 || (dy == 0 && dx > 0);
}

double signed_area(const Point& a, const Point& b, const Point& c) {
    return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
}

Bounds bounds_of(const Point& a, const Point& b, const Point& c, int64_t height, int64_t width, bool cull) {
    // Written so that a NaN anywhere fails the test.
    if (!(a.z > 0 && b.z > 0 && c.z > 0)) return kUnseen;
    const double area = signed_area(a, b, c);
    if (!std::isfinite(area) || area == 0 || (cull && area > 0)) return kUnseen;
    const double x0 = std::ceil(std::min({a.x, b.x, c.x}) - 0.5), x1 = std::floor(std::max({a.x, b.x, c.x}) - 0.5);
    const double y0 = std::ceil(std::min({a.y, b.y, c.y}) - 0.5), y1 = std::floor(std::max({a.y, b.y, c.y}) - 0.5);
    const double right = static_cast<double>(width - 1), bottom = static_cast<double>(height - 1);
    if (x0 > x1 || y0 > y1 || x1 < 0 || y1 < 0 || x0 > right || y0 > bottom) return kUnseen;
    return {static_cast<int32_t>(std::max(x0, 0.0)), static_cast<int32_t>(std::min(x1, right)),
            static_cast<int32_t>(std::max(y0, 0.0)), static_cast<int32_t>(std::min(y1, bottom))};
}

struct Scene {
    const float* vertices;     // (B, V, 3)
    const int32_t* triangles;  // (F, 3)
    int32_t* index;            // (B, H, W), filled with -1
    int64_t vertex_count, triangle_count, height, width;
    bool cull;
};

void rasterise_band(const Scene& scene, int64_t image, int64_t band, const Bounds* bounds) {
    const float* vertices = scene.vertices + image * scene.vertex_count * 3;
    int32_t* index = scene.index + image * scene.height * scene.width;
    const int64_t top = band * kBandRows, bottom = std::min(scene.height, top + kBandRows) - 1;
    std::vector<double> nearest(static_cast<size_t>((bottom - top + 1) * scene.width), 0.0);  // 1 / depth

    for (int64_t triangle = 0; triangle < scene.triangle_count; ++triangle) {
        const Bounds& box = bounds[triangle];
        const int64_t row0 = std::max<int64_t>(box.row0, top), row1 = std::min<int64_t>(box.row1, bottom);
        if (row0 > row1) continue;
        const int32_t* corner = scene.triangles + 3 * triangle;
        const Point a = point_at(vertices, corner[0]), b = point_at(vertices, corner[1]),
                    c = point_at(vertices, corner[2]);
        const double orientation = signed_area(a, b, c) > 0 ? 1.0 : -1.0;
        const bool owns_a = owns_edge(b, c, orientation), owns_b = owns_edge(c, a, orientation),
                   owns_c = owns_edge(a, b, orientation);
        const double inverse_a = 1.0 / a.z, inverse_b = 1.0 / b.z, inverse_c = 1.0 / c.z;
        for (int64_t row = row0; row <= row1; ++row) {
            const double py = static_cast<double>(row) + 0.5;
            for (int64_t column = box.column0; column <= box.column1; ++column) {
                const double px = static_cast<double>(column) + 0.5;
                const double ea = orientation * edge(b, c, px, py);
                if (ea < 0 || (ea == 0 && !owns_a)) continue;
                const double eb = orientation * edge(c, a, px, py);
                if (eb < 0 || (eb == 0 && !owns_b)) continue;
                const double ec = orientation * edge(a, b, px, py);
                if (ec < 0 || (ec == 0 && !owns_c)) continue;
                const double inverse = (ea * inverse_a + eb * inverse_b + ec * inverse_c) / (ea + eb + ec);
                double& best = nearest[static_cast<size_t>((row - top) * scene.width + column)];
                if (inverse > best) {  // strict: of two at one depth the first triangle stays
                    best = inverse;
                    index[row * scene.width + column] = static_cast<int32_t>(triangle);
                }
            }
        }
    }
}

// Runs task(0) .. task(count - 1) on the given number of threads. Tasks write to disjoint memory, so the order
// in which threads take them cannot change the result.
template <typename Task>
void run_tasks(int64_t count, int64_t threads, const Task& task) {
    std::atomic<int64_t> next{0};
    auto work = [&] {
        for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) task(i);
    };
    std::vector<std::thread> helpers;
    for (int64_t i = 1; i < std::min(threads, count); ++i) helpers.emplace_back(work);
    work();
    for (std::thread& helper : helpers) helper.join();
}

using Vertices = nb::ndarray<const float, nb::shape<-1, -1, 3>, nb::c_contig, nb::device::cpu>;
using Triangles = nb::ndarray<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Index = nb::ndarray<int32_t, nb::shape<-1, -1, -1>, nb::c_contig, nb::device::cpu>;

void rasterise_into(Vertices vertices, Triangles triangles, Index index, bool cull, int64_t threads) {
    const Scene scene{vertices.data(), triangles.data(), index.data(), static_cast<int64_t>(vertices.shape(1)),
                      static_cast<int64_t>(triangles.shape(0)), static_cast<int64_t>(index.shape(1)),
                      static_cast<int64_t>(index.shape(2)), cull};
    const int64_t images = static_cast<int64_t>(vertices.shape(0));
    if (static_cast<int64_t>(index.shape(0)) != images)
        throw std::invalid_argument("index: its batch differs from that of vertices");
    nb::gil_scoped_release release;
    for (int64_t i = 0; i < 3 * scene.triangle_count; ++i) {
        if (scene.triangles[i] < 0 || scene.triangles[i] >= scene.vertex_count)
            throw std::invalid_argument("triangles: a vertex index lies outside vertices");
    }
    std::fill_n(scene.index, images * scene.height * scene.width, -1);
    if (threads <= 0) threads = std::max(1u, std::thread::hardware_concurrency());

    std::vector<Bounds> bounds(static_cast<size_t>(images * scene.triangle_count));
    const int64_t chunks = (scene.triangle_count + kTrianglesPerTask - 1) / kTrianglesPerTask;
    run_tasks(images * chunks, threads, [&](int64_t task) {
        const int64_t image = task / chunks, first = task % chunks * kTrianglesPerTask;
        const float* own = scene.vertices + image * scene.vertex_count * 3;
        for (int64_t i = first; i < std::min(first + kTrianglesPerTask, scene.triangle_count); ++i) {
            const int32_t* corner = scene.triangles + 3 * i;
            bounds[static_cast<size_t>(image * scene.triangle_count + i)] =
                bounds_of(point_at(own, corner[0]), point_at(own, corner[1]), point_at(own, corner[2]),
                          scene.height, scene.width, scene.cull);
        }
    });
    const int64_t bands = (scene.height + kBandRows - 1) / kBandRows;
    run_tasks(images * bands, threads, [&](int64_t task) {
        const int64_t image = task / bands;
        rasterise_band(scene, image, task % bands, bounds.data() + image * scene.triangle_count);
    });
}

}  // namespace

NB_MODULE(_raster, module) {
    module.def("rasterise_into", &rasterise_into, nb::arg("vertices"), nb::arg("triangles"),
               nb::arg("index").noconvert(), nb::arg("cull"), nb::arg("threads"));
}
