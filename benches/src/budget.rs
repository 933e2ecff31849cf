//! Does one thing a hundred times, for valgrind to count: `budget NAME`; without a name it lists them.
//!
//! 1. Only what runs inside [`counted_by_valgrind`] is counted: `benches/run` tells valgrind that name. Allocations of it
//!    are counted here, and said at the end.
//! 2. Everything was done several times before: tables are warm and connections open.
//! 3. It runs on one thread, so that the same program counts the same.

use std::cell::Cell;
use std::hint::black_box;
use std::process::ExitCode;

mod allocations;
mod decisions;
mod whole;

/// So often is done what is counted; `benches/run` divides by it.
const TIMES: usize = 100;

/// So often it is done before.
const BEFORE: usize = 20;

/// Runs a piece of work, counted or not.
pub type Run = fn(&mut dyn FnMut());

/// Something to count: each call does it once.
pub type Benchmark = Box<dyn FnMut(Run)>;

/// Makes one ready.
type Make = fn() -> Benchmark;

/// Their names, and how each is made ready.
const BENCHMARKS: [(&str, Make); 19] = [
    ("ten-boxes", ten_boxes),
    ("identify-10", || decisions::identify(10)),
    ("identify-1000", || decisions::identify(1_000)),
    ("identify-100000", || decisions::identify(100_000)),
    ("identify-key-1", || decisions::identify_by_key(1, false)),
    ("identify-key-10000", || decisions::identify_by_key(10_000, false)),
    ("identify-key-10000-of-one", || decisions::identify_by_key(10_000, true)),
    ("authorize", decisions::authorize),
    ("target-short", || decisions::target(decisions::SHORT_QUERY.to_owned())),
    ("target-30k", || decisions::target(decisions::long_query())),
    ("fields-up", decisions::fields_up),
    ("fields-down", decisions::fields_down),
    ("classify", || decisions::classify(false)),
    ("classify-gzip", || decisions::classify(true)),
    ("refused", whole::refused),
    ("get", || whole::get(2, "")),
    // Every limit is counted, and a slot is free. The rate of the address is raised, because requests follow each other at once.
    ("get-quota", || whole::get(2, "quota: {limits: {by_ip: {limit: 1000000, raised: true}}}")),
    ("get-key", whole::get_with_key),
    ("get-60k", || whole::get(60, "")),
];

thread_local! {
    /// What was allocated inside what is counted.
    static ALLOCATED: Cell<u64> = const { Cell::new(0) };
}

/// Everything in here is counted. Never inlined: valgrind knows it by its name.
#[inline(never)]
fn counted_by_valgrind(work: &mut dyn FnMut()) {
    work();
    // Nothing may leave by a jump: the counting would go on.
    black_box(());
}

fn counted(work: &mut dyn FnMut()) {
    let before = allocations::count();
    counted_by_valgrind(work);
    ALLOCATED.set(ALLOCATED.get() + allocations::count() - before);
}

fn not_counted(work: &mut dyn FnMut()) {
    work();
}

/// What is known: it shows that allocations are counted at all.
fn ten_boxes() -> Benchmark {
    Box::new(|run| run(&mut || (0..10).for_each(|number| drop(black_box(Box::new(black_box(number)))))))
}

fn main() -> ExitCode {
    let Some(name) = std::env::args().nth(1) else {
        BENCHMARKS.iter().for_each(|(name, _)| println!("{name}"));
        return ExitCode::SUCCESS;
    };
    let Some((_, make)) = BENCHMARKS.iter().find(|(known, _)| *known == name) else {
        eprintln!("there is no benchmark '{name}'");
        return ExitCode::FAILURE;
    };
    let mut benchmark = make();
    (0..BEFORE).for_each(|_| benchmark(not_counted));
    (0..TIMES).for_each(|_| benchmark(counted));
    println!("{TIMES} times, {} allocations", ALLOCATED.get());
    ExitCode::SUCCESS
}
