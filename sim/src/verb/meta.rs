//! The same plan is the same run: twice in this process, and in another one.

use std::ops::Range;
use std::process::Command;

use anyhow::Context;

use sim::plan::Plan;
use sim::stage::{self, Planted};

const SEEDS: Range<u64> = 0..8;

pub(crate) fn run() -> anyhow::Result<bool> {
    let own = std::env::current_exe().context("where am I?")?;
    for seed in SEEDS {
        let plan = Plan::of_seed(seed);
        let here = stage::run(&plan, false, Planted::Nothing).hash;
        let again = stage::run(&plan, true, Planted::Nothing).hash;
        let output = Command::new(&own)
            .args(["replay", "--hash", "--seed", &seed.to_string()])
            .output()
            .context("cannot run another process of mine")?;
        let there = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if here != again || there != format!("{here:016x}") {
            println!("seed {seed}: {here:016x}, again {again:016x}, elsewhere {there}");
            return Ok(false);
        }
    }
    println!("deterministic: {} seeds, three times each", SEEDS.end);
    Ok(true)
}
