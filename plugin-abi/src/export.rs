//! What stands between the host and an author's type, inside the plugin's library.
//!
//! [`export_plugin!`](crate::export_plugin) exports the root module and the build information; the
//! types here implement the ABI for any [`Plugin`]. Every entry, every poll and every drop of the
//! author's code runs under `catch_unwind`, since a panic that reached the host would end the
//! process. A panic becomes a [`Failure`] with the place where it happened.
//!
//! It never decides what a failure means for a request: the host does.

use std::{
    any::Any,
    cell::RefCell,
    future::Future,
    mem::ManuallyDrop,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind},
    pin::Pin,
    sync::{Arc, Once, OnceLock},
    task::{self, Poll},
};

use abi_stable::{
    library::{__call_root_module_loader, CheckTypeLayout, RootModuleResult},
    prefix_type::PrefixTypeTrait,
};

use crate::{
    Load, Plugin, Request, Response, State,
    abi::{
        AbiConfigured, AbiConfigured_TO, AbiPlugin, AbiPlugin_TO, CallObject, ConfiguredObject,
        ContextObject, ExecuteFailure, ExecuteFailureKind, Failure, FfiFuture, Host, LoadArguments,
        Outcome, PluginModule, PluginModuleRef, PluginObject, ROption, RResult, RSlice, RString,
        StateBlob, TD_Opaque, Verdict,
    },
    configuration::ConfigSchema,
    execute::{self, Unsupported},
    logging,
    runtime::{self, Context, Kept},
};

/// The host that loaded this library. One library is one plugin, so it is a static of the library.
static HOST: OnceLock<Host> = OnceLock::new();

pub(crate) fn host() -> Option<&'static Host> {
    HOST.get()
}

/// Name of the exported symbol through which the host finds everything else.
pub const ROOT_MODULE_SYMBOL: &str = "PLUGIN_HOST_ROOT_MODULE";

/// Exports a plugin from its library: `export_plugin!(MyPlugin);`, once per crate.
///
/// The crate is a `cdylib` (`crate-type = ["cdylib"]`, with `"rlib"` beside it where its own tests
/// need it), and panics unwind in it: with `panic = "abort"` a panic would take the host down, so
/// that setting does not compile.
///
/// ```compile_fail
/// // Only types that implement `Plugin` can be exported.
/// plugin_abi::export_plugin!(String);
/// ```
#[macro_export]
macro_rules! export_plugin {
    ($plugin:ty) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a plugin must unwind on panic, or its panic takes the host down: \
             remove `panic = \"abort\"` from the profile that builds it"
        );

        const _: () = {
            const FACTS: &[(&str, &str)] = &[
                ("name", ::core::env!("CARGO_PKG_NAME")),
                ("version", ::core::env!("CARGO_PKG_VERSION")),
                ("description", ::core::env!("CARGO_PKG_DESCRIPTION")),
                ("authors", ::core::env!("CARGO_PKG_AUTHORS")),
                ("homepage", ::core::env!("CARGO_PKG_HOMEPAGE")),
                ("repository", ::core::env!("CARGO_PKG_REPOSITORY")),
                ("license", ::core::env!("CARGO_PKG_LICENSE")),
                (
                    "panic",
                    if ::core::cfg!(panic = "unwind") {
                        "unwind"
                    } else {
                        "abort"
                    },
                ),
            ];

            #[unsafe(no_mangle)]
            pub static PLUGIN_HOST_BUILD_INFO: [u8; $crate::build_info::encoded_len(FACTS)] =
                $crate::build_info::encode(FACTS);

            #[unsafe(no_mangle)]
            pub static PLUGIN_HOST_ROOT_MODULE: $crate::export::LibHeader =
                $crate::export::root_module::<$plugin, Schema>();

            struct Schema;

            impl $crate::configuration::ConfigSchema for Schema {
                fn config_schema() -> ::core::option::Option<$crate::configuration::Schema> {
                    use $crate::configuration::{OfAnyType as _, OfJsonSchema as _};
                    type Config = <$plugin as $crate::Plugin>::Config;
                    (&$crate::configuration::Probe::<Config>::NEW).config_schema()
                }
            }
        };
    };
}

/// Marks whatever library calls the code around it as one that uses a feature of the ABI, by a section
/// of its own in the library's file: the linker keeps it where, and only where, that code is kept. What
/// cannot go on without a method that came after ABI 1.0 calls it first:
/// `need!(".plugin_host.need.NAME")`, with a name of
/// [`FEATURES`](crate::build_info::FEATURES).
#[doc(hidden)]
#[macro_export]
macro_rules! need {
    ($section:literal) => {{
        #[unsafe(link_section = $section)]
        static NEED: u8 = 1;
        ::core::hint::black_box(&NEED);
    }};
}

/// Marks a library that leaves values, or reads those that were kept.
pub(crate) fn needs_values() {
    need!(".plugin_host.need.values");
}

/// Marks a library that spawns tasks.
pub(crate) fn needs_tasks() {
    need!(".plugin_host.need.tasks");
}

/// Marks a library that calls other services with the host's client.
pub(crate) fn needs_http_client() {
    need!(".plugin_host.need.http_client");
}

/// Marks a library that counts.
pub(crate) fn needs_metrics() {
    need!(".plugin_host.need.metrics");
}

#[doc(hidden)]
pub use abi_stable::library::LibHeader;

/// The library header that `export_plugin!` exports for a plugin.
#[doc(hidden)]
pub const fn root_module<P: Plugin, S: ConfigSchema>() -> LibHeader {
    // SAFETY: `construct::<P, S>` returns what `PluginModuleRef` was erased to, by way of
    // `__call_root_module_loader`, which takes the very type.
    unsafe {
        LibHeader::from_constructor::<PluginModuleRef>(construct::<P, S>, CheckTypeLayout::Yes)
    }
}

extern "C" fn construct<P: Plugin, S: ConfigSchema>() -> RootModuleResult {
    __call_root_module_loader(module::<P, S>)
}

/// The root module of a plugin, as the host finds it in the library; tests take it from here.
#[doc(hidden)]
pub fn module<P: Plugin, S: ConfigSchema>() -> PluginModuleRef {
    PluginModule {
        create: create::<P>,
        config_schema: config_schema::<S>,
    }
    .leak_into_prefix()
}

extern "C" fn config_schema<S: ConfigSchema>() -> RResult<RString, Failure> {
    let text = guarded(|| {
        S::config_schema().map_or_else(String::new, |schema| {
            // Rendering what is JSON already runs none of the author's code, and cannot fail.
            schema.as_value().to_string()
        })
    });
    match text {
        Ok(text) => RResult::ROk(text.into()),
        Err(failure) => RResult::RErr(failure),
    }
}

extern "C" fn create<P: Plugin>(
    host: Host,
    arguments: LoadArguments,
) -> FfiFuture<RResult<PluginObject, Failure>> {
    const { runtime::check(P::RUNTIME) };
    // A second host for one library would be a fault of the host's; the first one stays.
    let _ = HOST.set(host);
    remember_panics();
    logging::install();
    let started = guarded(|| {
        let started = Kept::start(P::RUNTIME, arguments.name.as_str());
        started.map_err(|error| error_of(&error))
    });
    let kept = match started {
        Ok(Ok(kept)) => kept,
        Ok(Err(failure)) | Err(failure) => {
            return FfiFuture::new(std::future::ready(RResult::RErr(failure)));
        }
    };
    FfiFuture::new(Guarded::new(
        kept.context(),
        async move {
            match load::<P>(arguments, kept).await {
                Ok(plugin) => RResult::ROk(AbiPlugin_TO::from_value(plugin, TD_Opaque)),
                Err(error) => RResult::RErr(error_of(&error)),
            }
        },
        RResult::RErr,
    ))
}

async fn load<P: Plugin>(arguments: LoadArguments, kept: Kept) -> anyhow::Result<Loaded<P>> {
    let settings = serde_json::from_slice(arguments.settings.as_slice())?;
    let load = Load::new(arguments.name, arguments.version, settings);
    let mut plugin = P::default();
    plugin.on_load(&load).await?;
    let plugin = DropGuarded::new(kept.context(), plugin);
    Ok(Loaded(Arc::new(Living { plugin, kept })))
}

/// A plugin and the runtime that its values may need until they are gone: fields are dropped in
/// this order.
struct Living<P> {
    plugin: DropGuarded<P>,
    kept: Kept,
}

/// The host's view of a plugin.
struct Loaded<P>(Arc<Living<P>>);

impl<P: Plugin> AbiPlugin for Loaded<P> {
    fn configure(&self, raw: RSlice<'_, u8>) -> RResult<ConfiguredObject, Failure> {
        let context = self.0.kept.context();
        let configured = guarded(|| {
            context.run(|| {
                // The error is dropped in here too: that is the author's code as well.
                let configured = self.0.plugin.get().configure(raw.as_slice());
                configured.map_err(|error| error_of(&error))
            })
        });
        match configured {
            Ok(Ok(config)) => RResult::ROk(AbiConfigured_TO::from_value(
                Configured(Arc::new(Serving {
                    config: DropGuarded::new(context, config),
                    living: Arc::clone(&self.0),
                })),
                TD_Opaque,
            )),
            Ok(Err(failure)) | Err(failure) => RResult::RErr(failure),
        }
    }

    fn unload(&self) -> FfiFuture<()> {
        let living = Arc::clone(&self.0);
        FfiFuture::new(Guarded::new(
            living.kept.context(),
            async move { living.plugin.get().on_unload().await },
            |failure| log::error!("on_unload {failure}"),
        ))
    }

    fn save_state(&self) -> RResult<ROption<StateBlob>, Failure> {
        saved(&self.0.kept.context(), || self.0.plugin.get().save_state())
    }

    fn restore_state(&self, state: StateBlob) -> RResult<(), Failure> {
        let plugin = self.0.plugin.get();
        restored(&self.0.kept.context(), || {
            plugin.restore_state(&State::from_blob(state))
        })
    }

    fn execute(&self, context: ContextObject) -> FfiFuture<RResult<ContextObject, ExecuteFailure>> {
        let living = Arc::clone(&self.0);
        FfiFuture::new(Guarded::new(
            living.kept.context(),
            async move {
                let mut context = execute::Context::new(context);
                match living.plugin.get().execute(&mut context).await {
                    Ok(()) => RResult::ROk(context.into_object()),
                    Err(error) if error.is::<Unsupported>() => {
                        RResult::RErr(ExecuteFailure::unsupported())
                    }
                    Err(error) => RResult::RErr(execution_failed(error_of(&error))),
                }
            },
            |failure| RResult::RErr(execution_failed(failure)),
        ))
    }
}

/// A plugin with one configuration: fields are dropped in this order.
struct Serving<P: Plugin> {
    config: DropGuarded<P::Config>,
    living: Arc<Living<P>>,
}

/// The host's view of a plugin with one configuration.
struct Configured<P: Plugin>(Arc<Serving<P>>);

impl<P: Plugin> AbiConfigured for Configured<P> {
    fn request(&self, call: CallObject) -> FfiFuture<Outcome> {
        let serving = Arc::clone(&self.0);
        FfiFuture::new(Guarded::new(
            serving.living.kept.context(),
            async move {
                let mut request = Request::new(call);
                let (plugin, config) = (serving.living.plugin.get(), serving.config.get());
                let verdict = match plugin.request_filter(config, &mut request).await {
                    Ok(action) => action.into_verdict(),
                    Err(error) => Verdict::Failed(error_of(&error)),
                };
                finished(request.into_call(), verdict)
            },
            panicked,
        ))
    }

    fn response(&self, call: CallObject) -> FfiFuture<Outcome> {
        let serving = Arc::clone(&self.0);
        FfiFuture::new(Guarded::new(
            serving.living.kept.context(),
            async move {
                let mut response = Response::new(call);
                let (plugin, config) = (serving.living.plugin.get(), serving.config.get());
                let verdict = match plugin.response_filter(config, &mut response).await {
                    Ok(()) => Verdict::Continue,
                    Err(error) => Verdict::Failed(error_of(&error)),
                };
                finished(response.into_call(), verdict)
            },
            panicked,
        ))
    }

    fn save_state(&self) -> RResult<ROption<StateBlob>, Failure> {
        let Serving { config, living } = &*self.0;
        saved(&living.kept.context(), || {
            living.plugin.get().save_config_state(config.get())
        })
    }

    fn restore_state(&self, state: StateBlob) -> RResult<(), Failure> {
        let Serving { config, living } = &*self.0;
        restored(&living.kept.context(), || {
            let state = State::from_blob(state);
            living
                .plugin
                .get()
                .restore_config_state(config.get(), &state)
        })
    }
}

/// What the author wants to be kept, or why nothing is.
fn saved(
    context: &Context,
    save: impl FnOnce() -> anyhow::Result<Option<State>>,
) -> RResult<ROption<StateBlob>, Failure> {
    let saved = guarded(|| context.run(|| save().map_err(|error| error_of(&error))));
    match saved {
        Ok(Ok(state)) => RResult::ROk(state.map(State::into_blob).into()),
        Ok(Err(failure)) | Err(failure) => RResult::RErr(failure),
    }
}

fn restored(
    context: &Context,
    restore: impl FnOnce() -> anyhow::Result<()>,
) -> RResult<(), Failure> {
    let restored = guarded(|| context.run(|| restore().map_err(|error| error_of(&error))));
    match restored {
        Ok(Ok(())) => RResult::ROk(()),
        Ok(Err(failure)) | Err(failure) => RResult::RErr(failure),
    }
}

/// A background task of the author's, as the host polls it: inside of the runtime in which it was
/// spawned.
pub(crate) fn task_of(task: impl Future<Output = ()> + Send + 'static) -> FfiFuture<()> {
    FfiFuture::new(Guarded::new(Context::of_caller(), task, |failure| {
        log::error!("a background task {failure}");
    }))
}

fn finished(call: CallObject, verdict: Verdict) -> Outcome {
    Outcome {
        call: ROption::RSome(call),
        verdict,
    }
}

fn panicked(failure: Failure) -> Outcome {
    Outcome {
        call: ROption::RNone,
        verdict: Verdict::Failed(failure),
    }
}

fn execution_failed(failure: Failure) -> ExecuteFailure {
    ExecuteFailure {
        kind: match failure.panicked {
            true => ExecuteFailureKind::PANIC,
            false => ExecuteFailureKind::ERROR,
        },
        message: failure.message,
    }
}

fn error_of(error: &anyhow::Error) -> Failure {
    Failure {
        panicked: false,
        // The alternate form prints the causes too.
        message: guarded(|| format!("{error:#}"))
            .unwrap_or_else(|_| "an error whose text could not be written".to_owned())
            .into(),
    }
}

/// Runs the author's code; a panic becomes a failure.
fn guarded<R>(code: impl FnOnce() -> R) -> Result<R, Failure> {
    // Nothing of ours is left half-changed by a panic, and what the author's code leaves behind is
    // the author's.
    catch_unwind(AssertUnwindSafe(code)).map_err(failure_of)
}

/// What tokio says where its runtime is missing.
const NO_RUNTIME: &str = "Tokio 1.x runtime";

/// What to do about it.
const NO_RUNTIME_HINT: &str = " (a library needs tokio's runtime: give the plugin \
    `const RUNTIME: Runtime = Runtime::Tokio;`)";

fn failure_of(payload: Box<dyn Any + Send>) -> Failure {
    let mut message = take_last_panic().unwrap_or_else(|| text_of(payload.as_ref()).to_owned());
    if message.contains(NO_RUNTIME) {
        message.push_str(NO_RUNTIME_HINT);
    }
    // A payload may panic while it is dropped; it is then leaked, for want of anything better.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
        // That panic is over: its message must not be taken for a later one's.
        let _ = take_last_panic();
    }
    Failure {
        panicked: true,
        message: message.into(),
    }
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    if let Some(text) = payload.downcast_ref::<&str>() {
        text
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text
    } else {
        "with a value that is no text"
    }
}

thread_local! {
    /// Message and place of this thread's latest panic, from the hook to the one who catches it.
    static LAST_PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

fn take_last_panic() -> Option<String> {
    // Nothing to take while the thread is being torn down.
    LAST_PANIC
        .try_with(|last| last.try_borrow_mut().ok()?.take())
        .ok()
        .flatten()
}

/// This library's panic hook is set once.
static HOOK: Once = Once::new();

/// Keeps the message and place of panics for [`Failure`], instead of printing them to standard
/// error, which is the gateway's error log. The hook is this library's own.
fn remember_panics() {
    HOOK.call_once(|| std::panic::set_hook(Box::new(remember)));
}

/// The same for a process that tests plugins: what panics there may be the test, so each panic is
/// told as before, too.
#[cfg(any(feature = "testing", doc))]
pub(crate) fn tell_panics_of_tests() {
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            remember(info);
            before(info);
        }));
    });
}

fn remember(info: &PanicHookInfo<'_>) {
    let place = info.location().map_or_else(String::new, |location| {
        format!(" at {}:{}", location.file(), location.line())
    });
    let message = format!("{}{place}", text_of(info.payload()));
    if runtime::is_own_thread() {
        // Nobody but the task's owner, if anybody, hears of it otherwise.
        log::error!("a task of its own runtime panicked: {message}");
        return;
    }
    // Fails only while the thread is being torn down, where nobody is left to ask.
    let _ = LAST_PANIC.try_with(|last| {
        if let Ok(mut last) = last.try_borrow_mut() {
            *last = Some(message);
        }
    });
}

/// A value of the author's whose drop may panic.
struct DropGuarded<T> {
    value: Option<T>,
    context: Context,
}

impl<T> DropGuarded<T> {
    fn new(context: Context, value: T) -> Self {
        Self {
            value: Some(value),
            context,
        }
    }

    fn get(&self) -> &T {
        self.value.as_ref().expect("taken only while it is dropped")
    }
}

impl<T> Drop for DropGuarded<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if let Err(failure) = guarded(|| self.context.run(|| drop(value))) {
            log::error!("a drop {failure}");
        }
    }
}

/// A future of the author's that neither polls nor drops with a panic.
struct Guarded<F, R> {
    future: ManuallyDrop<F>,
    context: Context,
    on_panic: fn(Failure) -> R,
}

impl<F: Future, R> Guarded<F, R> {
    fn new(context: Context, future: F, on_panic: fn(Failure) -> R) -> Self {
        Self {
            future: ManuallyDrop::new(future),
            context,
            on_panic,
        }
    }
}

impl<F: Future> Future for Guarded<F, F::Output> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<F::Output> {
        // SAFETY: `future` is pinned with the whole: it is never moved out, only polled here and
        // dropped in place in `drop`.
        let (future, surroundings, on_panic) = unsafe {
            let this = self.get_unchecked_mut();
            let future = Pin::new_unchecked(&mut *this.future);
            (future, &this.context, this.on_panic)
        };
        match guarded(|| surroundings.run(|| future.poll(context))) {
            Ok(poll) => poll,
            Err(failure) => Poll::Ready(on_panic(failure)),
        }
    }
}

impl<F, R> Drop for Guarded<F, R> {
    fn drop(&mut self) {
        let dropped = guarded(|| {
            self.context.run(|| {
                // SAFETY: dropped here and nowhere else, and not used afterwards.
                unsafe { ManuallyDrop::drop(&mut self.future) }
            });
        });
        if let Err(failure) = dropped {
            log::error!("the drop of a future {failure}");
        }
    }
}
