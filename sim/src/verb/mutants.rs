//! Applies each mutant to a copy of the tree, builds the simulator with it, and lets it hunt.
//!
//! The copy and what is built of it stay in `target/mutants`: after the first one, a mutant costs
//! only core and this package.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use sim::mutant::{self, Kill, Mutant, SEEDS_MOST};

pub(super) const PATCHES: &str = "sim/mutants";
const KILLS: &str = "sim/mutants/killed.json";
const SCRATCH: &str = "target/mutants";
/// What a compiler says first is what matters.
const ERROR_LINES_MOST: usize = 8;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these, or those for these oracles; all if nothing is named
    names: Vec<String>,
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Nothing on stdout but one object of JSON
    #[arg(long)]
    json: bool,
    /// Only so many, spread over the oracles, and first the seeds that found them before
    #[arg(long, conflicts_with = "names")]
    replay: Option<usize>,
    /// Keep the seeds that found them in `sim/mutants/killed.json`, and in docs/GUARANTEES.md
    #[arg(long, conflicts_with = "replay")]
    record: bool,
    /// Say too whether core's own tests notice: slower
    #[arg(long)]
    core_tests: bool,
    /// Those of the shells, and the scenarios in turmoil's network that have to notice them
    #[arg(long, conflicts_with_all = ["replay", "record", "core_tests"])]
    shells: bool,
}

/// What became of one.
struct Fate {
    mutant: Mutant,
    found_at: Option<u64>,
    /// Run until it was found, or until there were no more.
    seeds: u64,
    /// What else was noticed, by whom and how often, or why it could not be run.
    beside: String,
    noticed_by_core: Option<bool>,
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<bool> {
    let root = root()?;
    if args.shells {
        return super::shell_mutants::run(&root, &args.names, args.json);
    }
    let kills = read_kills(&root)?;
    let hunts = chosen(args, mutant::of_core(&root.join(PATCHES))?, &kills)?;
    let scratch = Scratch::copy(&root)?;
    let mut fates = Vec::new();
    for (nth, (mutant, from, seeds)) in hunts.iter().enumerate() {
        eprint!("{:>3} of {}  {:<44} ", nth + 1, hunts.len(), mutant.name);
        let mut fate = scratch.hunt(mutant, *from, *seeds, args)?;
        if fate.found_at.is_none() && args.replay.is_some() {
            // The code has moved on, and with it what happens in that seed.
            eprint!("not at seed {from} any more (run `mutants --record`), ");
            fate = scratch.hunt(mutant, 0, SEEDS_MOST, args)?;
        }
        eprintln!("{}", fate.in_words());
        fates.push(fate);
    }
    if args.record {
        record(&root, &kills, &fates)?;
        super::guarantees::run()?;
    }
    let survived = fates.iter().filter(|fate| fate.found_at.is_none()).count();
    if args.json {
        let mutants: Vec<Value> = fates.iter().map(Fate::json).collect();
        println!("{}", json!({ "mutants": mutants }));
    } else {
        print_table(&fates);
        println!("{} mutants, {survived} survived", fates.len());
    }
    Ok(survived == 0)
}

/// The root of the workspace: where the sources are that this program was built from, or here.
pub(super) fn root() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("where am I?")?;
    here.ancestors()
        .find(|folder| folder.join(PATCHES).is_dir())
        .map(Path::to_owned)
        .with_context(|| format!("there is no {PATCHES} here: run it in the source tree"))
}

fn chosen(
    args: &Args,
    all: Vec<Mutant>,
    kills: &[Kill],
) -> anyhow::Result<Vec<(Mutant, u64, u64)>> {
    if let Some(wanted) = args.replay {
        return mutant::spread(kills, wanted)
            .into_iter()
            .map(|kill| {
                let mutant = all.iter().find(|mutant| mutant.name == kill.name).cloned();
                let mutant = mutant.with_context(|| {
                    format!(
                        "{KILLS} names {}, which is no patch: run `mutants --record`",
                        kill.name
                    )
                })?;
                Ok((mutant, kill.seed, 1))
            })
            .collect();
    }
    let is_named =
        |mutant: &Mutant, name: &String| [&mutant.name, &mutant.found_by].contains(&name);
    for name in &args.names {
        ensure!(
            all.iter().any(|mutant| is_named(mutant, name)),
            "there is no {PATCHES}/{name}.patch, and no mutant for an oracle of that name"
        );
    }
    Ok(all
        .into_iter()
        .filter(|mutant| {
            let mut names = args.names.iter();
            args.names.is_empty() || names.any(|name| is_named(mutant, name))
        })
        .map(|mutant| (mutant, 0, SEEDS_MOST))
        .collect())
}

pub(super) fn read_kills(root: &Path) -> anyhow::Result<Vec<Kill>> {
    let file = root.join(KILLS);
    if !file.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&file).with_context(|| format!("cannot read {KILLS}"))?;
    serde_json::from_str(&text).with_context(|| format!("{KILLS} is not a list of kills"))
}

/// What was not run keeps its record, unless its patch is gone.
fn record(root: &Path, before: &[Kill], fates: &[Fate]) -> anyhow::Result<()> {
    let mut kills: Vec<Kill> = before
        .iter()
        .filter(|kill| fates.iter().all(|fate| fate.mutant.name != kill.name))
        .filter(|kill| {
            root.join(PATCHES)
                .join(format!("{}.patch", kill.name))
                .exists()
        })
        .cloned()
        .collect();
    kills.extend(fates.iter().filter_map(|fate| {
        Some(Kill {
            name: fate.mutant.name.clone(),
            oracle: fate.mutant.found_by.clone(),
            seed: fate.found_at?,
        })
    }));
    kills.sort_by(|a, b| a.name.cmp(&b.name));
    let text = serde_json::to_string_pretty(&kills)? + "\n";
    fs::write(root.join(KILLS), text).with_context(|| format!("cannot write {KILLS}"))
}

/// A copy of the tree, for changing.
pub(super) struct Scratch {
    root: PathBuf,
    tree: PathBuf,
}

impl Scratch {
    pub(super) fn copy(root: &Path) -> anyhow::Result<Self> {
        let tree = root.join(SCRATCH).join("tree");
        let listed = said(
            Command::new("git")
                .args([
                    "ls-files",
                    "--cached",
                    "--others",
                    "--exclude-standard",
                    "-z",
                ])
                .current_dir(root),
            "list the sources",
        )?;
        for name in String::from_utf8_lossy(&listed.stdout).split_terminator('\0') {
            let (from, to) = (root.join(name), tree.join(name));
            if from.is_file() {
                refresh(&from, &to)?;
            }
        }
        Ok(Self {
            root: root.to_owned(),
            tree,
        })
    }

    fn hunt(&self, mutant: &Mutant, from: u64, seeds: u64, args: &Args) -> anyhow::Result<Fate> {
        let began = Instant::now();
        let hunted = self.with(mutant, || self.hunt_applied(mutant, from, seeds, args))?;
        let (hunted, noticed_by_core) = hunted.unwrap_or_else(|error| {
            let beside = json!({ "error": format!("{error:#}") });
            (beside, None)
        });
        let found_at = hunted["seed"].as_u64();
        Ok(Fate {
            mutant: mutant.clone(),
            found_at,
            seeds: found_at.map_or(seeds, |seed| seed - from + 1),
            beside: match &hunted["error"] {
                Value::String(error) => error.clone(),
                _ => hunted["others"].to_string(),
            },
            noticed_by_core,
            seconds: began.elapsed().as_secs(),
        })
    }

    /// Does `what` while the mutant is applied. The outer error is of the files: nothing can go on.
    pub(super) fn with<T>(
        &self,
        mutant: &Mutant,
        what: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<anyhow::Result<T>> {
        let as_it_was = self.read(&mutant.files)?;
        let done = self.git_apply(mutant).and_then(|()| what());
        for (file, content) in as_it_was {
            fs::write(&file, content)
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        Ok(done)
    }

    fn read(&self, files: &[PathBuf]) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
        files
            .iter()
            .map(|file| {
                let file = self.tree.join(file);
                let content =
                    fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
                Ok((file, content))
            })
            .collect()
    }

    fn hunt_applied(
        &self,
        mutant: &Mutant,
        from: u64,
        seeds: u64,
        args: &Args,
    ) -> anyhow::Result<(Value, Option<bool>)> {
        said(
            // Without the soak: what real processes need would be built anew for each.
            &mut self.cargo(&[
                "build",
                "--quiet",
                "-p",
                "sim",
                "--bin",
                "sim",
                "--no-default-features",
            ]),
            &format!("compile the mutant {}", mutant.name),
        )?;
        let sim = self.root.join(SCRATCH).join("target/sim/sim");
        let output = Command::new(sim)
            .args(["hunt", "--oracle", &mutant.found_by])
            .args(["--from", &from.to_string(), "--seeds", &seeds.to_string()])
            .args(["--jobs", &args.jobs.to_string()])
            .output()
            .context("cannot run the mutant")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let answer: Value = serde_json::from_str(text.trim())
            .with_context(|| format!("the mutant {} said {text:?}", mutant.name))?;
        let noticed = args.core_tests.then(|| {
            let tests = self
                .cargo(&["test", "--quiet", "-p", "bowline-core", "--lib"])
                .output();
            tests.is_ok_and(|tests| !tests.status.success())
        });
        Ok((answer, noticed))
    }

    fn git_apply(&self, mutant: &Mutant) -> anyhow::Result<()> {
        let applied = said(
            Command::new("git")
                .arg("apply")
                .arg(&mutant.patch)
                .current_dir(&self.tree)
                // The copy lies in the tree, but is none of its repository's business.
                .env("GIT_CEILING_DIRECTORIES", self.root.join(SCRATCH)),
            &format!("apply {}", mutant.patch.display()),
        );
        applied.map(drop).context(
            "the code moved under a mutant: make the same slip in today's code, and write the \
             patch anew with `git diff`",
        )
    }

    pub(super) fn cargo(&self, args: &[&str]) -> Command {
        let mut cargo = Command::new("cargo");
        cargo
            .args(args)
            .args(["--profile", "sim", "--locked"])
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", self.root.join(SCRATCH).join("target"))
            // Mutants leave things unused.
            .env("RUSTFLAGS", "-Awarnings");
        cargo
    }
}

/// Copies what is different, so that what is built of the rest stays good.
fn refresh(from: &Path, to: &Path) -> anyhow::Result<()> {
    let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|there| there == content) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(to, content).with_context(|| format!("cannot write {}", to.display()))
}

pub(super) fn said(command: &mut Command, to_do: &str) -> anyhow::Result<Output> {
    let output = command
        .output()
        .with_context(|| format!("cannot {to_do}: {command:?}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let first: Vec<&str> = text.lines().take(ERROR_LINES_MOST).collect();
        bail!("cannot {to_do}:\n{}", first.join("\n"));
    }
    Ok(output)
}

impl Fate {
    fn in_words(&self) -> String {
        let core = match self.noticed_by_core {
            Some(true) => ", core's tests notice",
            Some(false) => ", core's tests do not notice",
            None => "",
        };
        let found = match self.found_at {
            Some(seed) => format!("found by {} at seed {seed}", self.mutant.found_by),
            None => format!(
                "SURVIVED {} in {} seeds: {}",
                self.mutant.found_by, self.seeds, self.beside
            ),
        };
        format!("{found}{core} ({} s)", self.seconds)
    }

    fn json(&self) -> Value {
        json!({
            "name": self.mutant.name,
            "oracle": self.mutant.found_by,
            "killed_by": self.found_at.map(|_| &self.mutant.found_by),
            "seed": self.found_at,
            "seeds": self.seeds,
        })
    }
}

fn print_table(fates: &[Fate]) {
    println!(
        "{:<44} {:<24} {:>6}  {:<8} what it does",
        "mutant", "oracle", "seeds", "core"
    );
    for fate in fates {
        let seeds = match fate.found_at {
            Some(_) => fate.seeds.to_string(),
            None => "-".to_owned(),
        };
        let core = match fate.noticed_by_core {
            Some(true) => "notices",
            Some(false) => "silent",
            None => "not run",
        };
        println!(
            "{:<44} {:<24} {seeds:>6}  {core:<8} {}",
            fate.mutant.name, fate.mutant.found_by, fate.mutant.why
        );
    }
}
