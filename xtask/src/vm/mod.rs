//! `cargo xtask vm`: the same tests on other kernels, in guests without KVM.
//!
//! The tests are built once. For each kernel a small root file system is made of them, what they run and the kernel's own
//! modules; a guest boots it, runs the suites one after the other and says over a serial port what became of each test.

mod apt;
mod archive;
mod boot;
mod errand;
mod initramfs;
mod kernel;
mod outcome;
mod qemu;
mod report;
mod suites;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sabot_ebpf_build::Objects;

use self::boot::Disk;
pub(crate) use self::errand::Errand;
use self::initramfs::{Files, Job};
use self::kernel::{FAMILIES, Family, Kernel};
use self::outcome::Guest;
use self::qemu::Qemu;
use crate::setup::{self, Purpose};
use crate::ui::Step;
use crate::{interrupt, process, ui};

/// How many times as long as on a real machine the fixtures wait for what must come.
const SLOWNESS: u32 = 10;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which kernel: 5.10, 6.1, 6.12, 7.2 or all; may be given several times
    #[arg(long, value_name = "VERSION", default_value = "all", value_parser = family_names())]
    kernel: Vec<String>,
    /// Run only tests whose name contains this
    #[arg(long, value_name = "FILTER")]
    test: Option<String>,
    /// Also write the results as JUnit's XML
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Fetch the newest kernels, whatever is in the cache
    #[arg(long)]
    refresh: bool,
}

fn family_names() -> Vec<&'static str> {
    let families = FAMILIES.iter().map(|family| family.version);
    families.chain(["all"]).collect()
}

/// Builds, boots each kernel, and prints the tables; fails if a test did.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    interrupt::catch()?;
    setup::ensure(Purpose::Demo)?;
    ui::heading("vm: qemu and kernels");
    let cache = cache();
    if arguments.refresh {
        for family in wanted(arguments) {
            remove(&cache.join(family.version))?;
        }
    }
    let qemu = Qemu::get(&cache)?;
    let mut kernels = Vec::new();
    for family in wanted(arguments) {
        kernels.push((family, Kernel::get(family, &cache)?));
    }
    ui::heading("build: eBPF objects, sabotd, sabot, suites");
    process::run(&mut Objects::new(&process::root())?.build_command())?;
    let built = suites::build()?;
    let files = Files::gather(&built.own(), &[])?;
    ui::heading("vm: guests, one after the other");
    let scratch = tempfile::tempdir()?;
    let mut guests = Vec::new();
    let jobs = suites::jobs(&built.suites, arguments.test.as_deref());
    for (family, kernel) in &kernels {
        let archive = files.archive(kernel, family, &jobs)?;
        let guest = boot(&qemu, kernel, &archive, &jobs, scratch.path())?;
        guests.push((family.version, guest));
    }
    println!("{}", report::text(&guests));
    if let Some(path) = &arguments.junit {
        fs::write(path, report::junit(&guests))
            .with_context(|| format!("{} can't be written", path.display()))?;
    }
    match report::failures(&guests) {
        0 => Ok(()),
        count => bail!("{count} failures"),
    }
}

fn wanted(arguments: &Arguments) -> impl Iterator<Item = &'static Family> {
    let all = arguments.kernel.iter().any(|name| name == "all");
    FAMILIES
        .iter()
        .filter(move |family| all || arguments.kernel.iter().any(|name| name == family.version))
}

fn boot(qemu: &Qemu, kernel: &Kernel, archive: &[u8], jobs: &[Job], scratch: &Path) -> Result<Guest> {
    let room = Room::new(scratch, archive)?;
    let longest = jobs.iter().map(|job| job.limit).max();
    let longest = longest.unwrap_or(Duration::ZERO);
    let step = Step::start(&kernel.release);
    let mut guest = Guest::default();
    let broken = boot::run(qemu, &room.disk(kernel), longest, &step, |line| guest.line(line))?;
    let tests = guest.tests.len();
    match (&broken, guest.failures()) {
        (Some(_), _) => step.failed("the guest didn't come to its end"),
        (None, 0) => step.done(&format!("{tests} tests")),
        (None, failures) => step.failed(&format!("{tests} tests, {failures} failures")),
    }
    guest.broken.extend(broken);
    Ok(guest)
}

/// Where qemu, this machine's kernels for guests and what they are fetched with are.
fn cache() -> PathBuf {
    sabot_ebpf_build::linker_root().with_file_name("kernels")
}

/// The files of one guest.
struct Room {
    initramfs: PathBuf,
    console: PathBuf,
}

impl Room {
    fn new(scratch: &Path, archive: &[u8]) -> Result<Self> {
        let room = Self {
            initramfs: scratch.join("initramfs"),
            console: scratch.join("console"),
        };
        fs::write(&room.initramfs, archive).context("the initramfs can't be written")?;
        Ok(room)
    }

    fn disk<'a>(&'a self, kernel: &'a Kernel) -> Disk<'a> {
        Disk {
            image: &kernel.image,
            initramfs: &self.initramfs,
            console: &self.console,
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("{} can't be removed", folder.display()))?;
    }
    Ok(())
}
