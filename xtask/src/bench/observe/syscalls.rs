//! What a syscall costs while syscalls are traced: one of the thread that they are traced of, and one of any other.

use std::ffi::CString;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use nix::sys::prctl;
use nix::unistd::gettid;
use sabot_proto::sabot::v1;
use sabot_testkit::Daemon;

use super::{SETTLED, tracers};
use crate::bench::Plan;
use crate::bench::measure::Samples;
use crate::bench::report::{Figure, Report, Statistic};
use crate::interrupt;
use crate::ui::Step;

const TRACED: &str = "sabot-traced";
const UNTRACED: &str = "sabot-other";
/// Calls that are timed together.
const CHUNK: u64 = 2000;
const CHUNKS: u64 = 200;
/// strace stops its thread twice a call.
const CHUNKS_OF_STRACE: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tracer {
    Nothing,
    Sabotd,
    Bpftrace,
    Strace,
}

const TRACERS: [(Tracer, &str); 4] = [
    (Tracer::Nothing, "nothing"),
    (Tracer::Sabotd, "sabotd"),
    (Tracer::Bpftrace, "bpftrace"),
    (Tracer::Strace, "strace -c"),
];

/// ns a call.
#[derive(Default)]
struct Costs {
    untraced: Samples,
    traced: Samples,
}

pub(super) fn measure(plan: &Plan, report: &mut Report) -> Result<()> {
    let step = Step::start("syscalls: nothing, sabotd, bpftrace and strace in turn");
    let rounds = plan.repetitions(9, 2);
    let mut all: [Costs; TRACERS.len()] = Default::default();
    let mut counted = Vec::new();
    for round in 0..rounds {
        for ((tracer, name), costs) in TRACERS.iter().zip(&mut all) {
            interrupt::check()?;
            step.note(&format!("round {} of {rounds}: {name}", round + 1));
            let (untraced, traced) = match tracer {
                Tracer::Nothing => (as_thread(UNTRACED, time)?, as_thread(TRACED, time)?),
                Tracer::Sabotd => sabotd(plan, &mut counted)?,
                Tracer::Bpftrace => bpftrace()?,
                Tracer::Strace => strace()?,
            };
            costs.untraced.push(untraced);
            costs.traced.push(traced);
        }
    }
    step.done(&format!("{rounds} rounds"));
    say(report, &all, &counted);
    Ok(())
}

fn say(report: &mut Report, all: &[Costs; TRACERS.len()], counted: &[u64]) {
    let [nothing, sabotd, bpftrace, strace] = all;
    let section = report.section("one getppid while sabotd traces");
    for (name, of) in [
        (
            "of an untraced thread",
            (|costs| &costs.untraced) as fn(&Costs) -> &Samples,
        ),
        ("of a traced thread", |costs| &costs.traced),
    ] {
        let figure = Figure::new("time", "ns", of(sabotd).spread());
        section.row(name, vec![figure.against("nothing traces", of(nothing).spread())]);
    }
    let section = report.section("what tracing adds to one getppid");
    let untraced = |of: &Costs| of.untraced.less(&nothing.untraced).spread();
    let traced = |of: &Costs| of.traced.less(&nothing.traced).spread();
    section.row(
        "of an untraced thread",
        vec![
            Figure::new("added", "ns", untraced(sabotd))
                .beside("bpftrace", untraced(bpftrace))
                .at_least(Statistic::Advantage, 1.0),
        ],
    );
    section.row(
        "of a traced thread",
        vec![
            Figure::new("added", "ns", traced(sabotd))
                .beside("bpftrace", traced(bpftrace))
                .at_least(Statistic::Advantage, 1.0),
        ],
    );
    section.row(
        "of a traced thread, beside strace",
        vec![Figure::new("added", "ns", traced(sabotd)).beside("strace -c", traced(strace))],
    );
    let made = CHUNK * CHUNKS;
    report.check(
        "sabotd has counted every call",
        counted.iter().all(|&count| count == made),
        format!("{made} made, {counted:?} counted"),
    );
}

fn sabotd(plan: &Plan, counted: &mut Vec<u64>) -> Result<(f64, f64)> {
    let options = plan.options.clone().flags(&["--syscall-process", TRACED]);
    let daemon = Daemon::start(options)?;
    // The kernel measures the programs' runs in a daemon's first second, and in one out of every 30 later.
    thread::sleep(SETTLED);
    let costs = (as_thread(UNTRACED, time)?, as_thread(TRACED, time)?);
    let client = daemon.client()?;
    let answer = client.wait(client.observe().get_snapshot(v1::GetSnapshotRequest {}))?;
    let syscalls = answer.into_inner().syscalls;
    let calls = syscalls
        .iter()
        .find(|pair| pair.process == TRACED && pair.syscall == "getppid");
    counted.push(calls.map_or(0, |pair| pair.calls));
    Ok(costs)
}

fn bpftrace() -> Result<(f64, f64)> {
    let (calls, made) = mpsc::channel();
    thread::scope(|scope| {
        // Until bpftrace is seen to see it, a thread of that name makes calls when it is asked to.
        let caller = scope.spawn(move || as_thread(TRACED, || made.into_iter().for_each(|()| getppid())));
        let tool = tracers::bpftrace(TRACED, || {
            let _ = calls.send(());
        });
        drop(calls);
        caller
            .join()
            .map_err(|_| anyhow!("the calling thread panicked"))??;
        let _tool = tool?;
        Ok((as_thread(UNTRACED, time)?, as_thread(TRACED, time)?))
    })
}

/// The untraced thread runs beside one that strace is attached to.
fn strace() -> Result<(f64, f64)> {
    let (attach, attached) = mpsc::channel();
    let (go, gone) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let traced = scope.spawn(move || {
            as_thread(TRACED, move || {
                let told = attach.send(gettid().as_raw());
                // It waits in a call, as a traced process at rest does.
                let _ = gone.recv();
                told.is_ok().then(|| time_chunks(CHUNKS_OF_STRACE))
            })
        });
        let tool = attached
            .recv()
            .context("the traced thread is gone")
            .and_then(tracers::strace);
        let untraced = as_thread(UNTRACED, time);
        drop(go);
        let traced = traced
            .join()
            .map_err(|_| anyhow!("the traced thread panicked"))??;
        let _tool = tool?;
        Ok((untraced?, traced.context("nobody waits for the traced thread")?))
    })
}

/// On a thread of this name.
pub(super) fn as_thread<T: Send>(name: &str, act: impl FnOnce() -> T + Send) -> Result<T> {
    let name = CString::new(name)?;
    thread::scope(|scope| {
        scope
            .spawn(|| {
                prctl::set_name(&name)?;
                Ok(act())
            })
            .join()
            .map_err(|_| anyhow!("the thread that makes calls panicked"))?
    })
}

fn time() -> f64 {
    time_chunks(CHUNKS)
}

/// ns a call in the best of the chunks, which nothing has interrupted.
fn time_chunks(chunks: u64) -> f64 {
    (0..chunks)
        .map(|_| {
            let start = Instant::now();
            for _ in 0..CHUNK {
                getppid();
            }
            start.elapsed().as_nanos() as f64 / CHUNK as f64
        })
        .fold(f64::INFINITY, f64::min)
}

/// The least that a syscall can do.
fn getppid() {
    // SAFETY: the call takes nothing and can't fail.
    unsafe { libc::syscall(libc::SYS_getppid) };
}
