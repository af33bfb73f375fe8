// Templates, virtual calls, callbacks of the standard library, and exceptions thrown through them.
#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define NOINLINE __attribute__((noinline))

namespace shapes {

volatile unsigned long sink;

struct Shape {
    virtual ~Shape() = default;
    virtual unsigned long area(unsigned long limit) const = 0;
};

template <class T, int Step> struct Grid : Shape {
    NOINLINE unsigned long area(unsigned long limit) const override
    {
        T total = 0;
        for (unsigned long at = 0; at < limit; at += Step)
            total = total * 31 + static_cast<T>(at);
        sink = sink + static_cast<unsigned long>(total);
        return static_cast<unsigned long>(total) + 1;
    }
};

template <class Compare> NOINLINE unsigned long order(std::vector<unsigned> &values, Compare compare)
{
    unsigned state = 1;
    for (unsigned &value : values)
        value = state = state * 1103515245 + 12345;
    std::sort(values.begin(), values.end(), compare);
    return values.front();
}

NOINLINE unsigned long refuse(unsigned long depth)
{
    if (depth == 0)
        throw std::out_of_range("no deeper");
    unsigned long found = refuse(depth - 1);
    sink = sink + found; // not a tail call
    return found + depth;
}

NOINLINE unsigned long attempt(unsigned long number)
{
    try {
        return refuse(number % 8);
    } catch (const std::exception &error) {
        return std::string(error.what()).size();
    }
}

NOINLINE unsigned long count(unsigned long number)
{
    std::map<std::string, unsigned long> counts;
    for (unsigned long at = 0; at < 600; at++)
        counts[std::to_string((at * number) % 97)] += at;
    return counts.size();
}

} // namespace shapes

int main()
{
    std::vector<std::unique_ptr<shapes::Shape>> all;
    all.push_back(std::make_unique<shapes::Grid<unsigned, 1>>());
    all.push_back(std::make_unique<shapes::Grid<double, 3>>());
    std::vector<unsigned> values(2000);
    unsigned state = 1;
    std::function<unsigned long(unsigned long)> attempt = shapes::attempt;
    for (unsigned long number = 1;; number++) {
        unsigned long total = 0;
        state = state * 1103515245 + 12345; // no turn is as long as the one before
        for (const auto &shape : all)
            total += shape->area(68000 + (state >> 16));
        total += shapes::order(values, [](unsigned a, unsigned b) { return a < b; });
        for (int turn = 0; turn < 40; turn++)
            total += attempt(number + turn);
        total += shapes::count(number);
        shapes::sink = shapes::sink + total;
    }
}
