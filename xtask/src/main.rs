//! Everything a developer or CI runs: `cargo xtask help` lists it.

mod bench;
mod build;
mod crds;
mod demo;
mod e2e;
mod fuzz;
mod image;
mod interrupt;
mod lint;
mod manifests;
mod package;
mod process;
mod setup;
mod soak;
mod test;
mod ui;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Sets up, builds, checks and shows Sabot.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Finds or installs what building, the demo or the tests need.
    Setup(setup::Arguments),
    /// Builds the eBPF objects, sabotd and sabot.
    Build(build::Arguments),
    /// Writes the CustomResourceDefinitions in deploy/crds, or checks that they are up to date.
    Crds(crds::Arguments),
    /// Checks formatting, clippy's and our own rules.
    Lint,
    /// Runs every test, the linter first; the end-to-end ones need root.
    Test(test::Arguments),
    /// Shows every fault on real packets; needs root.
    Demo(demo::Arguments),
    /// Makes the container image, as an archive for containerd, kind and Docker.
    Image(image::Arguments),
    /// Makes a Debian package and a tarball.
    Package(package::Arguments),
    /// Writes the kustomize base from the chart.
    Manifests(manifests::Arguments),
    /// Installs, checks and uninstalls Sabot on a cluster.
    E2e(e2e::Arguments),
    /// Runs tests on other kernels, in guests.
    Vm(vm::Arguments),
    /// Feeds bytes that nobody thought of to everything that reads what others write.
    Fuzz(fuzz::Arguments),
    /// Torments daemons with everything at once, and sees that what must hold does; needs root.
    Soak(soak::Arguments),
    /// Measures how fast faults are applied, and what they cost per packet; needs root.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Setup(arguments) => setup::run(&arguments),
        Task::Build(arguments) => build::run(&arguments),
        Task::Crds(arguments) => crds::run(&arguments),
        Task::Lint => lint::run(),
        Task::Test(arguments) => test::run(&arguments),
        Task::Demo(arguments) => demo::run(&arguments),
        Task::Image(arguments) => image::run(&arguments),
        Task::Package(arguments) => package::run(&arguments),
        Task::Manifests(arguments) => manifests::run(&arguments),
        Task::E2e(arguments) => e2e::run(&arguments),
        Task::Vm(arguments) => vm::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Soak(arguments) => soak::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
