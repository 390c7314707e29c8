//! How fast machines are answered, as ratios within one run: figures of one run compare with each other, not with those of
//! another machine. Run it by `cargo xtask bench boots`.
//!
//! A real boot plane over a real store on a real disk, with the default plugin as it is shipped and the log written to
//! standard error; the clients are one thread of this process. What is compared takes turns, round after round, so that
//! whatever else the machine does meanwhile befalls all of it alike.
mod load;
mod machines;
mod processors;
mod report;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use load::Sample;
use machines::{BLOCK, CONNECTIONS, Doing};
use report::Target;
use world::{Decider, World};

/// The server's own, see `src/main.rs`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure how fast machines are answered.
#[derive(Parser)]
struct Arguments {
    /// Folder for the stores, emptied first; on a real disk, as every boot waits for it.
    folder: PathBuf,
    /// How many hosts the stores know: hundreds.
    #[arg(long, value_delimiter = ',', default_values_t = [100, 10_000, 100_000])]
    hosts: Vec<u64>,
    /// How often each thing is measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// How long each time, in milliseconds.
    #[arg(long, default_value_t = 1_000)]
    round_ms: u64,
    /// Measure only what has this in its name, for a profiler.
    #[arg(long)]
    only: Option<String>,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Commits,
    Bootstrap(Doing, Decider),
}

impl Subject {
    const INSTALLING: Self = Self::Bootstrap(Doing::Installing, Decider::Wasm);
    const FINISHED: Self = Self::Bootstrap(Doing::Finished, Decider::Wasm);
    const WAITING: Self = Self::Bootstrap(Doing::Waiting, Decider::Wasm);
    const NATIVE: Self = Self::Bootstrap(Doing::Installing, Decider::Native);
    const ALL: [Self; 5] = [Self::Commits, Self::INSTALLING, Self::FINISHED, Self::WAITING, Self::NATIVE];

    fn name(self) -> &'static str {
        match self {
            Self::Commits => "the same commits without HTTP",
            Self::Bootstrap(Doing::Installing, Decider::Wasm) => "/bootstrap, installing hosts",
            Self::Bootstrap(Doing::Finished, _) => "/bootstrap, finished hosts",
            Self::Bootstrap(Doing::Waiting, _) => "/bootstrap, waiting hosts",
            Self::Bootstrap(Doing::Installing, Decider::Native) => "/bootstrap, installing, plugin in native code",
        }
    }

    async fn measure(self, world: &World, time: Duration) -> Result<Sample> {
        match self {
            Self::Commits => load::commits(&world.bare_store, world.hosts, time).await,
            Self::Bootstrap(doing, decider) => {
                world.decide_by(decider);
                load::requests(world.address, world.hosts, doing, time).await
            }
        }
    }
}

/// One size of store, and what was measured on it.
struct Measured {
    world: World,
    rounds: Vec<(Subject, Vec<Sample>)>,
}

impl Measured {
    fn of(&self, subject: Subject) -> &[Sample] {
        self.rounds.iter().find(|(measured, _)| *measured == subject).map_or(&[], |(_, rounds)| rounds)
    }
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let good = arguments.hosts.iter().all(|hosts| *hosts > 0 && hosts % BLOCK == 0);
    ensure!(good && !arguments.hosts.is_empty(), "the numbers of hosts must be hundreds");
    kiwispray::telemetry::start(0, None)?;
    tokio::runtime::Runtime::new()?.block_on(run(&arguments))
}

async fn run(arguments: &Arguments) -> Result<ExitCode> {
    let time = Duration::from_millis(arguments.round_ms);
    let processors = std::thread::available_parallelism()?;
    println!(
        "{CONNECTIONS} connections, {} rounds of {time:?} each; {processors} processors, shared with the clients",
        arguments.rounds
    );
    let mut sizes = Vec::new();
    for hosts in &arguments.hosts {
        let world = build(&arguments.folder, *hosts).await?;
        let wanted = |subject: &Subject| arguments.only.as_ref().is_none_or(|only| subject.name().contains(only));
        let rounds = Subject::ALL.into_iter().filter(wanted).map(|subject| (subject, Vec::new())).collect();
        sizes.push(Measured { world, rounds });
    }
    let (begin, all, own) = (Instant::now(), processors::used_by_all()?, processors::used_by_process()?);
    // The first round warms up and is not counted.
    for round in 0..=arguments.rounds {
        for Measured { world, rounds } in &mut sizes {
            for (subject, samples) in rounds {
                let sample = subject.measure(world, time).await.with_context(|| subject.name())?;
                if round > 0 {
                    samples.push(sample);
                }
            }
        }
    }
    let own = processors::used_by_process()?.saturating_sub(own);
    let others = processors::used_by_all()?.saturating_sub(all).saturating_sub(own);
    let share = others.as_secs_f64() / begin.elapsed().as_secs_f64() / processors.get() as f64;
    let failed = report(&sizes);
    println!("\nOther programs had {:.0} % of the processors meanwhile.", share * 100.0);
    for Measured { world, .. } in sizes {
        world.end().await;
    }
    std::fs::remove_dir_all(&arguments.folder)?;
    if failed > 0 {
        println!("{failed} of the targets are not reached.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

async fn build(folder: &Path, hosts: u64) -> Result<World> {
    let begin = Instant::now();
    let world = World::build(&folder.join(hosts.to_string()), hosts).await?;
    println!("{hosts} hosts registered and the stores opened in {:.1?}", begin.elapsed());
    Ok(world)
}

/// Prints everything; how many targets are not reached.
fn report(sizes: &[Measured]) -> usize {
    report::print_rates_head();
    for size in sizes {
        for (subject, rounds) in &size.rounds {
            report::print_rate(size.world.hosts, subject.name(), rounds);
        }
    }
    if sizes.iter().any(|size| size.rounds.len() < Subject::ALL.len()) {
        return 0;
    }
    report::print_ratios_head();
    let mut good = Vec::new();
    for size in sizes {
        let mut line = |what: &str, one, over, target| {
            let what = format!("{} hosts: {what}", size.world.hosts);
            good.push(report::print_ratio(&what, size.of(one), size.of(over), target));
        };
        line("installing / commits without HTTP", Subject::INSTALLING, Subject::Commits, Target::AtLeast(0.7));
        line("finished / installing", Subject::FINISHED, Subject::INSTALLING, Target::AtLeast(3.0));
        line("waiting / installing", Subject::WAITING, Subject::INSTALLING, Target::AtLeast(3.0));
        line("installing, WASM / native plugin", Subject::INSTALLING, Subject::NATIVE, Target::AtLeast(0.8));
    }
    if let [fewest, .., most] = sizes {
        for subject in Subject::ALL {
            let what = format!("{}: {} / {} hosts", subject.name(), most.world.hosts, fewest.world.hosts);
            let promised = [Subject::INSTALLING, Subject::FINISHED, Subject::WAITING].contains(&subject);
            let target = if promised { Target::AtLeast(0.8) } else { Target::None };
            good.push(report::print_ratio(&what, most.of(subject), fewest.of(subject), target));
        }
    }
    good.iter().filter(|good| !**good).count()
}
