// Trait objects, closures, sorting with a comparison, maps, and panics that are caught.
use std::collections::{BTreeMap, HashMap};
use std::hint::black_box;
use std::panic;

trait Step {
    fn run(&self, limit: u64) -> u64;
}

struct Add(u64);
struct Mix<T>(T);

impl Step for Add {
    #[inline(never)]
    fn run(&self, limit: u64) -> u64 {
        let mut total = self.0;
        for at in 0..limit {
            total = black_box(total.wrapping_mul(31).wrapping_add(at));
        }
        total
    }
}

impl<T: Copy + Into<u64>> Step for Mix<T> {
    #[inline(never)]
    fn run(&self, limit: u64) -> u64 {
        let mut total: u64 = self.0.into();
        for at in 0..limit {
            total = black_box(total ^ (total << 7) ^ at);
        }
        total
    }
}

#[inline(never)]
fn order(seed: u64) -> u64 {
    let mut values: Vec<u64> = (0..3000).map(|at| (at * seed) % 7919).collect();
    values.sort_by(|left, right| black_box(right).cmp(black_box(left)));
    values[7]
}

#[inline(never)]
fn count(seed: u64) -> u64 {
    let mut hashed: HashMap<u64, u64> = HashMap::new();
    let mut sorted: BTreeMap<String, u64> = BTreeMap::new();
    for at in 0..400 {
        *hashed.entry((at * seed) % 97).or_default() += at;
        *sorted.entry(((at * seed) % 53).to_string()).or_default() += at;
    }
    (hashed.len() + sorted.len()) as u64
}

#[inline(never)]
fn refuse(depth: u64) -> u64 {
    if depth == 0 {
        panic!("no deeper");
    }
    black_box(refuse(depth - 1)) + 1
}

#[inline(never)]
fn attempt(depth: u64) -> u64 {
    panic::catch_unwind(|| refuse(depth)).unwrap_or(1)
}

fn main() {
    panic::set_hook(Box::new(|_| {}));
    let steps: Vec<Box<dyn Step>> = vec![Box::new(Add(1)), Box::new(Mix(3u32))];
    let mut total = 0u64;
    let mut state = 1u32;
    for number in 1u64.. {
        // No turn is as long as the one before.
        state = state.wrapping_mul(1103515245).wrapping_add(12345);
        for step in &steps {
            total = total.wrapping_add(step.run(68_000 + u64::from(state >> 16)));
        }
        total = total.wrapping_add(order(number)).wrapping_add(count(number));
        for turn in 0..20 {
            total = total.wrapping_add(attempt((number + turn) % 8));
        }
        black_box(total);
    }
}
