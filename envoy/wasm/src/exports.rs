//! What Envoy calls, and nothing more: a callback that a module does not export costs Envoy nothing. Source: proxy-wasm
//! ABI v0.2.1.
#![expect(unsafe_code, reason = "exports are named for the host")]

use std::cell::RefCell;
use std::rc::Rc;

use rustc_hash::FxHashMap;

use crate::host::{self, Level};
use crate::plugin::Plugin;
use crate::{http, tcp};

/// Whether Envoy goes on with what it has called for.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Continue = 0,
    Pause = 1,
}

/// A request or a connection.
struct Context {
    root: u32,
    plugin: Rc<Plugin>,
    /// What was decided so far, if it is a connection.
    connection: tcp::Connection,
}

thread_local! {
    /// What was configured, by the number of the root context.
    static PLUGINS: RefCell<FxHashMap<u32, Rc<Plugin>>> = RefCell::default();
    static CONTEXTS: RefCell<FxHashMap<u32, Rc<Context>>> = RefCell::default();
}

fn plugin(root: u32) -> Option<Rc<Plugin>> {
    PLUGINS.with_borrow(|plugins| plugins.get(&root).map(Rc::clone))
}

fn context(number: u32) -> Option<Rc<Context>> {
    CONTEXTS.with_borrow(|contexts| contexts.get(&number).map(Rc::clone))
}

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the host calls this once, before anything else.
    unsafe { __wasm_call_ctors() };
    std::panic::set_hook(Box::new(|panic| host::log(Level::Critical, &panic.to_string())));
}

/// Where the host puts the bytes that it hands over.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    Box::into_raw(vec![0_u8; size].into_boxed_slice()).cast()
}

/// A root context has no parent, and is of no account before it is configured.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(number: u32, root: u32) {
    if let Some(plugin) = plugin(root) {
        let context = Rc::new(Context { root, plugin, connection: tcp::Connection::new(number) });
        CONTEXTS.with_borrow_mut(|contexts| contexts.insert(number, context));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(number: u32) {
    if CONTEXTS.with_borrow_mut(|contexts| contexts.remove(&number)).is_none() {
        PLUGINS.with_borrow_mut(|plugins| plugins.remove(&number));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> bool {
    let Some(plugin) = Plugin::new(host::plugin_configuration().unwrap_or_default()) else { return false };
    PLUGINS.with_borrow_mut(|plugins| plugins.insert(root, Rc::new(plugin)));
    true
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(number: u32, _headers: u32, _end: u32) -> Action {
    http::on_request(context(number).as_ref().map(|context| &*context.plugin))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_new_connection(number: u32) -> Action {
    context(number).map_or_else(tcp::refuse, |context| context.connection.on_new(&context.plugin))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_downstream_data(number: u32, _size: usize, _end: u32) -> Action {
    context(number).map_or_else(tcp::refuse, |context| context.connection.on_client_data(&context.plugin))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_upstream_data(number: u32, _size: usize, _end: u32) -> Action {
    context(number).map_or_else(tcp::refuse, |context| context.connection.on_server_data(&context.plugin))
}

/// Only while connections are held.
#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    let contexts: Vec<Rc<Context>> = CONTEXTS
        .with_borrow(|contexts| contexts.values().filter(|context| context.root == root).map(Rc::clone).collect());
    // Every one is asked, not only as many as it takes to know that one is held.
    let held = contexts.iter().filter(|context| context.connection.on_tick(&context.plugin)).count();
    if held == 0 {
        host::stop_ticking();
    }
}
