//! The `shunt` program: start, stop and exit code. The only place for anyhow.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Error, anyhow};
use clap::Parser;
use hyper::Uri;
use shunt::backend::nftables::Nftables;
use shunt::backend::userspace::Userspace;
use shunt::backend::{Backend, BackendError, mode};
use shunt::background::{Api, Background, Lasting};
use shunt::cli::{self, Command, Options, Run, SourceChoice};
use shunt::config::{self, Config, ConfigError, Loaded, LogFormat, Mode, Origin, node_name};
use shunt::conntrack::{self, Conntrack};
use shunt::engine::Engine;
use shunt::exit::Exit;
use shunt::health;
use shunt::leftovers;
use shunt::lock::{Lock, LockError};
use shunt::metrics::Metrics;
use shunt::model::Family;
use shunt::notices;
use shunt::process;
use shunt::reload::Watched;
use shunt::run::{Ended, EventLoop, Events};
use shunt::source::manifests::Manifests;
use shunt::source::{convert, watch};
use shunt::sysctl;
use tracing::{info, warn};

/// Why the program ends early: the code for the parent process, the words for the user.
struct Failure(Exit, Error);

impl<E: Into<Error>> From<(Exit, E)> for Failure {
    fn from((exit, error): (Exit, E)) -> Self {
        Self(exit, error.into())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Given { .. } => Exit::Usage,
            ConfigError::Read { .. }
            | ConfigError::Syntax { .. }
            | ConfigError::Document { .. }
            | ConfigError::UnknownField { .. }
            | ConfigError::Value { .. } => Exit::Config,
        };
        Self(exit, error.into())
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        let exit = match &error {
            BackendError::Privilege(_) => Exit::Privilege,
            BackendError::Unsupported(_) => Exit::Kernel,
            BackendError::Busy(_) => Exit::Busy,
            BackendError::Refused { .. } | BackendError::Io { .. } => Exit::Other,
        };
        Self(exit, error.into())
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let exit = if matches!(error, LockError::Held { .. }) { Exit::Busy } else { Exit::Other };
        Self(exit, error.into())
    }
}

fn main() -> ExitCode {
    let options = Options::parse_from(cli::arguments(std::env::args_os()));
    let result = match &options.command {
        Command::Run(run) if run.version => {
            println!("shunt {}", env!("CARGO_PKG_VERSION"));
            Ok(())
        }
        Command::Config(run) => show(&options, run),
        Command::Run(run) if run.write_config_to.is_some() => show(&options, run),
        Command::Run(run) if !run.cleanup => run_until_it_ends(&options, run),
        Command::Cleanup(what) if what.kube_proxy => {
            start_logging(options.verbosity.unwrap_or_default(), LogFormat::Text);
            cleanup_kube_proxy()
        }
        Command::Run(_) | Command::Cleanup(_) => {
            start_logging(options.verbosity.unwrap_or_default(), LogFormat::Text);
            cleanup()
        }
    };
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(Failure(exit, error)) => {
            // Each error tells its own cause; the chain would tell it twice.
            eprintln!("shunt: {error}");
            exit.into()
        }
    }
}

fn start_logging(verbosity: u32, format: LogFormat) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::prelude::*;
    let wanted = std::env::var("RUST_LOG").unwrap_or_else(|_| cli::log_filter(verbosity).to_owned());
    let (filter, wrong) = match wanted.parse::<Targets>() {
        Ok(filter) => (filter, None),
        Err(error) => (Targets::new().with_default(tracing::Level::INFO), Some(error)),
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if let Some(error) = wrong {
        warn!("RUST_LOG is ignored: `{wanted}` is no filter such as `shunt=debug,kube=warn`: {error}");
    }
}

/// The configuration as the file, the environment and the command line have it; `text` is the file's,
/// if it was read already.
fn load(options: &Options, run: &Run, text: Option<&str>) -> Result<Loaded, Failure> {
    let given = options.given(run, std::env::var("NODE_NAME").ok());
    let mut loaded = match (&run.config, text) {
        (Some(path), Some(text)) => config::parse(text, path, &given)?,
        (path, _) => config::load(path.as_deref(), &given)?,
    };
    loaded.warnings.extend(run.kube_proxy.ignored.iter().cloned());
    let config = &mut loaded.config;
    config.affinity_clients = run.affinity_clients.unwrap_or(config.affinity_clients);
    config.open_tables = run.open_tables;
    if let Some(seconds) = run.userspace_drain {
        config.userspace_drain = Duration::from_secs(seconds.into());
    }
    if let Some(kubeconfig) = &run.kubeconfig {
        config.kubeconfig = Some(kubeconfig.clone());
        loaded.origins.insert("clientConnection.kubeconfig".to_owned(), Origin::Flag("--kubeconfig"));
    }
    if config.node_name.is_none() {
        let name = node_name::choose(config).map_err(|error| (Exit::Config, error))?;
        config.node_name = Some(name.to_string());
        loaded.origins.insert("hostnameOverride".to_owned(), Origin::Host);
    }
    Ok(loaded)
}

/// `shunt config`, and `--write-config-to`.
fn show(options: &Options, run: &Run) -> Result<(), Failure> {
    let loaded = load(options, run, None)?;
    start_logging(loaded.config.verbosity, loaded.config.log_format);
    warn_of(&loaded);
    let yaml = loaded.to_yaml(run.config.as_deref());
    let written = match &run.write_config_to {
        Some(path) => std::fs::write(path, yaml).map_err(|error| anyhow!("{}: {error}", path.display())),
        None => print(&yaml),
    };
    written.map_err(|error| Failure(Exit::Other, anyhow!("the configuration cannot be written: {error}")))
}

/// Prints to standard output. That whoever reads has seen enough (`| head`) is no error.
fn print(text: &str) -> Result<(), Error> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn warn_of(loaded: &Loaded) {
    for warning in &loaded.warnings {
        warn!("configuration: {warning}");
    }
}

/// `shunt run`, and again in the same process whenever the configuration changes.
fn run_until_it_ends(options: &Options, run: &Run) -> Result<(), Failure> {
    match start(options, run)? {
        Some(text) => {
            let error = process::start_afresh(&text);
            let what = "shunt cannot start afresh with the changed configuration";
            Err(Failure(Exit::Other, anyhow!("{what}: {error}")))
        }
        None => Ok(()),
    }
}

/// Sets up node and process; the settings of the node that do not exist yet.
fn set_up(config: &Config) -> Vec<sysctl::Setting> {
    sysctl::set_oom_score(config);
    sysctl::set_node(config)
}

/// The configuration file, to be followed. None of what ends by itself does that, and a pipe is read once.
fn watched(options: &Options, run: &Run, text: String, loaded: &Loaded) -> Option<Watched> {
    let path = run.config.clone().filter(|path| path.is_file())?;
    let (options, run, file) = (options.clone(), run.clone(), path.clone());
    let read = move || {
        let text = config::text(&file).map_err(|error| error.to_string())?;
        let loaded = load(&options, &run, Some(&text)).map_err(|Failure(_, error)| error.to_string())?;
        Ok((text, loaded))
    };
    Some(Watched { path, text, in_force: loaded.clone(), read: Box::new(read) })
}

/// Runs until it ends; the text of the configuration if it is to start afresh with that.
fn start(options: &Options, run: &Run) -> Result<Option<String>, Failure> {
    let text = match (process::handed_over(), &run.config) {
        (Some(text), Some(_)) => Some(text),
        (None, Some(path)) => Some(config::text(path)?),
        (_, None) => None,
    };
    let loaded = load(options, run, text.as_deref())?;
    start_logging(loaded.config.verbosity, loaded.config.log_format);
    warn_of(&loaded);
    let watched = watched(options, run, text.unwrap_or_default(), &loaded);
    let config = loaded.config;
    if run.init_only {
        sysctl::warn_of_missing(&sysctl::set_node(&config));
        return Ok(None);
    }
    let node_name = node_name::choose(&config).map_err(|error| (Exit::Config, error))?;
    info!("shunt {} on node {node_name}", env!("CARGO_PKG_VERSION"));
    let metrics = Metrics::default();
    metrics.configuration_warnings.set(i64::try_from(loaded.warnings.len()).unwrap_or(i64::MAX));
    let context = convert::Context::new(node_name, run.service_proxy_name.as_deref().map(Into::into));
    let (reporter, shown) = health::channel();
    let (recorder, notices) = notices::channel(metrics.clone());
    let (events_loop, events) = EventLoop::new(metrics.clone(), reporter, recorder.clone());
    // What can be wrong on this machine comes first: nothing is read before shunt may write.
    let _lock = if run.dry_run { None } else { Some(Lock::take()?) };
    let later = if run.dry_run { Vec::new() } else { set_up(&config) };
    process::allow_files().map_err(|error| (Exit::Other, error))?;
    let config = choose_mode(config, run)?;
    let mode = config.mode;
    let context = context.with_proxy_protocol(mode == Mode::Userspace);
    let in_force = config.clone();
    let traffic = metrics.traffic.clone();
    let sources = || {
        let background = Background::new()
            .map_err(|error| (Exit::Other, anyhow!("the asynchronous runtime cannot start: {error}")))?;
        background.read_addresses(&events);
        let (choice, master) = (run.source(&config), run.master.clone());
        let server = start_source(&choice, master, &background, context.clone(), &metrics, &events)?;
        // What ends by itself serves nothing.
        let lasting = (!run.once && !run.dry_run).then_some(Lasting { config, shown, watched, later });
        let options = watch::Options { endpoints: run.legacy_endpoints, ..watch::Options::default() };
        let notices = (!run.dry_run).then_some(notices);
        let api = server.map(|server| Api { server, context, options, notices });
        background
            .start(&events, lasting, metrics, recorder, api)
            .map_err(|error| Failure(Exit::Other, anyhow!("no thread can be started: {error}")))
    };
    if mode == Mode::Userspace {
        let engine = Engine::new(Userspace::open(&in_force, traffic)?, &in_force);
        return follow(engine, &mut conntrack::Untouched, run, mode, &events_loop, sources);
    }
    let engine = Engine::new(Nftables::open(&in_force)?, &in_force);
    follow(engine, &mut conntrack::Netlink::default(), run, mode, &events_loop, sources)
}

/// The configuration with the mode that this node runs in.
fn choose_mode(config: Config, run: &Run) -> Result<Config, Failure> {
    let mode = mode::choose(&config);
    if mode == Mode::Userspace && run.once {
        let error = anyhow!("--once has no use in the userspace mode: nothing is served when shunt ends");
        return Err(Failure(Exit::Usage, error));
    }
    Ok(Config { mode, ..config })
}

/// Starts the sources and follows them until the end; returns as [`start`] does. What another mode has left
/// behind serves until this one does.
fn follow(
    mut engine: Engine<impl Backend>,
    conntrack: &mut impl Conntrack,
    run: &Run,
    mode: Mode,
    events_loop: &EventLoop,
    sources: impl FnOnce() -> Result<(), Failure>,
) -> Result<Option<String>, Failure> {
    leftovers::warn_if_found();
    sources()?;
    let ended = if run.dry_run {
        match events_loop.fill(&mut engine) {
            Some(ended) => ended,
            None => return print_plans(&mut engine).map(|()| None),
        }
    } else {
        events_loop.run(&mut engine, conntrack, run.once, || mode::remove_leftovers(mode))
    };
    match ended {
        Ended::Done => Ok(None),
        Ended::Reload(text) => Ok(Some(text)),
        Ended::Failed(what) => Err(Failure(Exit::Other, anyhow!(what))),
        Ended::Refused(services) => {
            let services = services.join(", ");
            let error = anyhow!(
                "the kernel refuses {services}; the warnings above say why, all others are programmed"
            );
            Err(Failure(Exit::Other, error))
        }
        Ended::Backend(error) => Err(error.into()),
    }
}

fn print_plans<B: Backend>(engine: &mut Engine<B>) -> Result<(), Failure> {
    for plan in engine.dry_run()? {
        let (family, changes) = (plan.family, plan.changes.len());
        let word = if changes == 1 { "change" } else { "changes" };
        print(&format!("{family}: {changes} {word}\n{plan}"))
            .map_err(|error| (Exit::Other, anyhow!("the plan cannot be printed: {error}")))?;
    }
    Ok(())
}

/// Starts the source of objects; an API server is returned, for the background to follow.
fn start_source(
    choice: &SourceChoice,
    master: Option<Uri>,
    background: &Background,
    context: convert::Context,
    metrics: &Metrics,
    events: &Events,
) -> Result<Option<watch::Server>, Failure> {
    let kubeconfig = match choice {
        SourceChoice::Manifests(dir) => {
            let source = |error| Failure::from((Exit::Source, error));
            let manifests = Manifests::open(dir, context, metrics.clone()).map_err(source)?;
            manifests.follow(events.sink()).map_err(source)?;
            return Ok(None);
        }
        SourceChoice::Kubeconfig(path) => Some(path.clone()),
        SourceChoice::InCluster => None,
    };
    let access = watch::Access { kubeconfig, master, ..watch::Access::default() };
    background.wait_for(async {
        let server = watch::connect(access, metrics.clone()).await.map_err(|error| (Exit::Source, error))?;
        info!("following the API server at {}", server.url().await);
        Ok(Some(server))
    })
}

/// `shunt cleanup`. What one mode refuses in one family keeps nothing else; the first error decides how it ends.
fn cleanup() -> Result<(), Failure> {
    let _lock = Lock::take()?;
    let mut first = None;
    for family in Family::ALL {
        let (mut removed, mut failed) = (false, false);
        for (mode, result) in mode::cleanup(family) {
            match result {
                Ok(there) => removed |= there,
                Err(error) => {
                    failed = true;
                    eprintln!("{family}: nothing of the {} mode is removed: {error}", mode.as_str());
                    first.get_or_insert(error);
                }
            }
        }
        match (removed, failed) {
            (true, true) => println!("{family}: removed what shunt had programmed in the other mode"),
            (true, false) => println!("{family}: removed what shunt had programmed"),
            (false, false) => println!("{family}: nothing of shunt's to remove"),
            (false, true) => {}
        }
    }
    let Some(first) = first else { return Ok(()) };
    let Failure(exit, _) = first.into();
    Err(Failure(exit, anyhow!("not everything could be removed; the lines above say what, and why")))
}

/// `shunt cleanup --kube-proxy`.
fn cleanup_kube_proxy() -> Result<(), Failure> {
    let report = leftovers::remove().map_err(|error| {
        let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
        let exit = if denied { Exit::Privilege } else { Exit::Other };
        Failure(exit, anyhow!("nf_tables cannot be read: {error}"))
    })?;
    print!("{report}");
    if report.failed {
        let error =
            anyhow!("not everything of kube-proxy's could be removed; the lines above say what, and why");
        return Err(Failure(Exit::Other, error));
    }
    Ok(())
}
