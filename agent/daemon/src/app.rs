//! The one place where the parts are wired: checks, start, the order of the end.

mod cri;
mod following;
mod kernel;
mod notify;
mod observers;
mod privileges;
mod probes;
mod signals;
mod syscalls;
mod tcp;
mod traffic;
mod world;

use std::ffi::OsString;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sabot_abi as abi;
use sabot_core::plan::Policy;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{oneshot, watch};
use tokio::task::{self, JoinHandle};

use crate::api::{self, BindError, Limits, NodeInfo, Remote, ServeError, Services, TlsError, WatchLoss};
use crate::audit::{AuditError, AuditLog, Endings};
use crate::bridge::{self, BridgeError};
use crate::config::{Attach, Config, ConfigError, Invocation};
use crate::engine::handle::Handle;
use crate::engine::{Control, Engine, LeftBehind, Options, Parts};
use crate::kernel::features::Features;
use crate::kernel::{Injector, Taps, reaper};
use crate::logging::{self, LoggingError};
use crate::metrics::{self, Exemplars, HttpState, ReconcileDuration, Sources};
use crate::observe::dns;
use crate::observe::event::EventHub;
use crate::observe::identity;
use crate::observe::observers::Observers;
use crate::observe::packets::{self, SnapshotEnricher};
use crate::observe::timeline;
use crate::targets::kube::{Connection, KubeError, KubeStatus};
use crate::targets::{Names, TargetsHandle};
use signals::Signals;

/// For the servers to end once they were told to; the engine has its own bound.
const SERVERS_END: Duration = Duration::from_secs(3);
/// For threads that still wait for the kernel when everything else has ended.
const THREADS_END: Duration = Duration::from_millis(500);
/// Most faults of a large cluster have no target on this node: those take memory here, and no slot.
const MAX_FAULTS: usize = 4 * abi::MAX_SLOTS as usize;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Logging(#[from] LoggingError),
    #[error(transparent)]
    Privileges(#[from] privileges::PrivilegeError),
    #[error("cannot start {part}: {source}")]
    Start { part: &'static str, source: io::Error },
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Kubernetes(#[from] KubeError),
    #[error("cannot serve metrics on {address} (see --metrics-address): {source}")]
    MetricsAddress { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Kernel(#[from] kernel::KernelError),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Audit(#[from] AuditError),
    #[error("serving gRPC has ended: {0}")]
    Api(ServeError),
    #[error("{part} has ended although nobody asked it to{}", reason(.source.as_ref()))]
    Ended {
        part: &'static str,
        source: Option<io::Error>,
    },
    #[error(transparent)]
    LeftBehind(#[from] LeftBehind),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
}

fn reason(source: Option<&io::Error>) -> String {
    source.map_or_else(String::new, |source| format!(": {source}"))
}

impl AppError {
    /// Tells the user, and says how the process ends: 2 for wrong usage, 1 for everything else that failed, 0 for the
    /// help text.
    pub fn report(&self) -> ExitCode {
        match self {
            Self::Config(ConfigError::Usage(error)) => {
                // Where neither stdout nor stderr can be written to, the code is all that can be said.
                let _ = error.print();
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Self::Config(error) => {
                eprintln!("sabotd: {error}");
                ExitCode::from(2)
            }
            error => {
                eprintln!("sabotd: {error}");
                ExitCode::FAILURE
            }
        }
    }
}

/// Runs the daemon until a signal ends it, or a bridge to it, or its reaper.
///
/// # Errors
/// Whatever keeps it from starting, from going on, or from cleaning up.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<(), AppError> {
    let config = match Invocation::load(arguments)? {
        Invocation::Serve(config) => *config,
        Invocation::Bridge { socket } => return Ok(bridge::run(&socket)?),
        Invocation::Reaper { owner } => return reaper::run(owner).map_err(started("the reaper")),
    };
    logging::start(&config.log)?;
    privileges::check()?;
    privileges::raise_locked_memory();
    // Before the runtime's threads are started, which inherit it.
    if let Err(error) = crate::kernel::cgroups::enter_outer() {
        tracing::warn!(%error, "cgroups are seen as in this container; pods on the node's network may have no name");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(started("the runtime's threads"))?;
    let result = runtime.block_on(serve(config));
    runtime.shutdown_timeout(THREADS_END);
    result
}

fn started(part: &'static str) -> impl FnOnce(io::Error) -> AppError {
    move |source| AppError::Start { part, source }
}

async fn serve(config: Config) -> Result<(), AppError> {
    let mut signals = Signals::new().map_err(started("the signal handlers"))?;
    // Before anything else: a second daemon must not touch what the first one has in force.
    let (socket, _socket_guard) = api::bind_socket(&config.socket)?;
    let remote = match &config.remote {
        Some(remote) => Some(api::bind_remote(remote).await?),
        None => None,
    };
    let http = bind_http(config.metrics_address).await?;
    let cluster = world::cluster(&config).await?;
    let audit = AuditLog::open(config.audit_log.as_ref(), &config.node_name)?;
    let listeners = Listeners { socket, remote, http };
    let config = Arc::new(config);
    let kernel = {
        let config = Arc::clone(&config);
        task::spawn_blocking(move || kernel::load(&config))
    };
    let mut kernel = kernel.await.map_err(|panic| AppError::Start {
        part: "the kernel's part",
        source: io::Error::other(panic),
    })??;
    let _waits_for_the_end = kernel.reaper.take();

    let daemon = Daemon::start(&config, kernel, cluster, listeners, audit)?;
    give_memory_back();
    notify::notify(notify::READY);
    tracing::info!(socket = %config.socket.display(), node = config.node_name, "serving");
    daemon.run(&mut signals).await
}

/// Loading the programs needs many times the memory that is needed ever after.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function may be called at any time, by any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

async fn bind_http(address: Option<SocketAddr>) -> Result<Option<TcpListener>, AppError> {
    let Some(address) = address else {
        return Ok(None);
    };
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(Some(listener)),
        Err(source) => Err(AppError::MetricsAddress { address, source }),
    }
}

/// Where the daemon is reached.
struct Listeners {
    socket: UnixListener,
    remote: Option<Remote>,
    http: Option<TcpListener>,
}

/// Everything that runs, and how to end it.
struct Daemon {
    engine: Control,
    /// What the engine's thread says at its end; closed without a word when it panicked.
    engine_ended: oneshot::Receiver<Result<(), LeftBehind>>,
    stop: watch::Sender<bool>,
    endings: Option<Endings>,
    api: JoinHandle<Result<(), ServeError>>,
    /// Ends with the process where there is no address to serve on.
    http: JoinHandle<io::Result<()>>,
    /// The gate: as long as it is held, faults work.
    _injector: Arc<Injector>,
}

impl Daemon {
    fn start(
        config: &Config,
        kernel: kernel::Kernel,
        cluster: Connection,
        listeners: Listeners,
        audit: AuditLog,
    ) -> Result<Self, AppError> {
        let hub = EventHub::new(config.event_buffer);
        let (kubernetes, kube) = (cluster.status(), cluster.handle());
        let (source, told) = world::watch_targets(config, cluster);
        let containers = cri::start_names(&source);
        let identities = identity::start(source.watch()).with_containers(containers);
        let injector = kernel.injector;
        let (observers, observed) = observers::start(config, &source, told, &identities, &hub, &injector);
        let features = Arc::new(kernel.features.and(observed));

        let reconcile = ReconcileDuration::default();
        let names = source.names();
        let parts = parts(config, source, injector.clone(), &features, &hub, &reconcile);
        let (engine, handle, control) = Engine::new(parts, options(config));
        let engine_ended = start_engine(engine)?;
        world::follow_resources(config, kube, &handle, options(config).limits, &audit);

        let observers = Arc::new(start_readers(
            observers,
            kernel.taps,
            &handle,
            names,
            &hub,
            &injector,
        )?);
        observers::follow(config, &handle, &observers);
        let endings = Endings::follow(&audit, handle.clone());
        let timelines = timeline::start(handle.clone(), identities, observers.clone(), &hub);

        let (stop, stopped) = watch::channel(false);
        let watch_loss = WatchLoss::default();
        let lost = watch_loss.clone();
        let sources = Sources {
            engine: handle.clone(),
            observers: Arc::clone(&observers),
            delays: Some(injector.clone()),
            subscribers_lost: Box::new(move || lost.get()),
            features: Arc::clone(&features),
            reconcile,
            costs: observers::measure(config),
            kubernetes: kubernetes.clone(),
            exemplars: Some(Exemplars::follow(&hub, handle.clone())),
        };
        let state = probes::http_state(sources, &control, &injector);
        let services = Services {
            engine: handle,
            events: hub,
            observe: observers,
            timelines: Arc::new(timelines),
            node: Arc::new(node_info(config, &features, kubernetes)),
            audit,
            watch_loss,
        };
        let Listeners { socket, remote, http } = listeners;
        let serving = api::serve(socket, remote, services, until(stopped.clone()));
        Ok(Self {
            engine: control,
            engine_ended,
            stop,
            endings,
            api: tokio::spawn(serving),
            http: tokio::spawn(serve_http(http, state, until(stopped))),
            _injector: injector,
        })
    }

    /// Waits for a signal or for the end of a part, and then ends everything.
    async fn run(mut self, signals: &mut Signals) -> Result<(), AppError> {
        let cause = tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "ending: every fault is reverted");
                Ok(())
            }
            // Nothing could be reverted in order: the end of the process takes everything with it, and that at once.
            result = &mut self.engine_ended => return Err(ended_early(result)),
            result = &mut self.api => Err(match result {
                Ok(Err(error)) => AppError::Api(error),
                Ok(Ok(())) => AppError::Ended { part: "the gRPC server", source: None },
                Err(panic) => AppError::Ended { part: "the gRPC server", source: Some(io::Error::other(panic)) },
            }),
            result = &mut self.http => Err(AppError::Ended {
                part: "the metrics server",
                source: result.unwrap_or_else(|panic| Err(io::Error::other(panic))).err(),
            }),
        };
        if let Err(error) = &cause {
            tracing::error!(%error, "ending: every fault is reverted");
        }
        tokio::select! {
            reverted = self.end() => cause.and(reverted),
            signal = signals.next() => {
                tracing::warn!(signal, "a second signal: ending at once; what is attached goes with the process");
                std::process::exit(1);
            }
        }
    }

    async fn end(self) -> Result<(), AppError> {
        notify::notify(notify::STOPPING);
        if let Some(endings) = self.endings {
            endings.close().await;
        }
        self.engine.stop();
        self.stop.send_replace(true);
        let reverted = match self.engine_ended.await {
            Ok(result) => result.map_err(AppError::from),
            Err(_) => Err(AppError::Ended {
                part: "the engine",
                source: None,
            }),
        };
        let servers = async {
            // One of them may be the reason of the end, and is over already.
            if !self.api.is_finished() {
                let _ = self.api.await;
            }
            if !self.http.is_finished() {
                let _ = self.http.await;
            }
        };
        if tokio::time::timeout(SERVERS_END, servers).await.is_err() {
            tracing::info!("clients were still connected at the end");
        }
        tracing::info!("ended");
        reverted
    }
}

fn ended_early(result: Result<Result<(), LeftBehind>, oneshot::error::RecvError>) -> AppError {
    match result {
        Ok(Err(left)) => AppError::LeftBehind(left),
        Ok(Ok(())) | Err(_) => AppError::Ended {
            part: "the engine",
            source: None,
        },
    }
}

async fn until(mut stopped: watch::Receiver<bool>) {
    // An error means that the daemon is gone.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// What the engine works with.
fn parts(
    config: &Config,
    source: TargetsHandle,
    datapath: Arc<Injector>,
    features: &Arc<Features>,
    hub: &EventHub,
    reconcile: &ReconcileDuration,
) -> Parts {
    let reconcile = reconcile.clone();
    Parts {
        datapath,
        source: Arc::new(source),
        features: Arc::clone(features),
        events: hub.clone(),
        control_plane: world::control_plane(config),
        on_reconcile: Box::new(move |duration| reconcile.observe(duration)),
    }
}

/// The engine has a thread of its own, so that neither side waits for the other's work: it blocks for every quick
/// operation, and thousands of peers are many of those.
fn start_engine(engine: Engine) -> Result<oneshot::Receiver<Result<(), LeftBehind>>, AppError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .thread_name("engine-worker")
        .build()
        .map_err(started("the engine's runtime"))?;
    let (ended, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || {
            let result = runtime.block_on(engine.run());
            // Without a receiver the daemon is ending anyway.
            let _ = ended.send(result);
            runtime.shutdown_background();
        })
        .map_err(started("the engine's thread"))?;
    Ok(receiver)
}

/// The observers, with those of what the injector's programs tell.
fn start_readers(
    mut observers: Observers,
    taps: Taps,
    handle: &Handle,
    names: Names,
    hub: &EventHub,
    injector: &Arc<Injector>,
) -> Result<Observers, AppError> {
    if let Some(logger) = taps.logger {
        kernel::forward_log(logger).map_err(started("the reader of the programs' log"))?;
    }
    let enricher = SnapshotEnricher::new(handle.clone());
    let lost = |which: u32| {
        let injector = Arc::clone(injector);
        move || injector.incidents()[which as usize]
    };
    let packets_lost = lost(abi::INCIDENT_EVENT_LOST);
    let packets = packets::start(taps.packet_events, enricher, hub.clone(), packets_lost)
        .map_err(started("the reader of packet events"))?;
    let dns = dns::start(taps.dns_answers, names, hub.clone(), lost(abi::INCIDENT_DNS_LOST))
        .map_err(started("the reader of DNS answers"))?;
    let incidents = Arc::clone(injector);
    observers.packets = Some(packets);
    observers.dns = Some(dns);
    observers.incidents = Some(Box::new(move || incidents.incidents()));
    Ok(observers)
}

async fn serve_http(
    listener: Option<TcpListener>,
    state: Arc<HttpState>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    match listener {
        Some(listener) => metrics::serve(listener, state, stopped).await,
        None => {
            stopped.await;
            Ok(())
        }
    }
}

fn options(config: &Config) -> Options {
    Options {
        limits: sabot_core::Limits {
            max_duration: config.max_duration,
            default_sample_every: config.sample_every,
            ..sabot_core::Limits::default()
        },
        guards: config.guards.pods.clone(),
        policy: Policy {
            keep_warm: config.keep_warm,
            attach_eagerly: config.attach == Attach::All,
            max_slots: abi::MAX_SLOTS,
            max_targets: abi::MAX_TARGETS,
            max_slots_per_target: abi::MAX_TARGET_SLOTS,
        },
        max_faults: MAX_FAULTS,
        keep_ended: config.keep_ended,
    }
}

fn node_info(config: &Config, features: &Features, kubernetes: KubeStatus) -> NodeInfo {
    NodeInfo {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.node_name.clone(),
        started_at: SystemTime::now(),
        started: Instant::now(),
        features: features.clone(),
        kubernetes,
        limits: Limits {
            max_duration: config.max_duration,
            max_faults: abi::MAX_SLOTS,
            max_targets: abi::MAX_TARGETS,
            max_faults_per_target: abi::MAX_TARGET_SLOTS as u32,
        },
    }
}
