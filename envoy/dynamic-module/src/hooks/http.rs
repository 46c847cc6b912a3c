//! The hooks of HTTP filters.

use std::ffi::{c_int, c_void};
use std::mem::offset_of;
use std::ptr::{NonNull, null};

use super::guarded;
use crate::abi::Buffer;
use crate::abi::http::{HttpFilter, HttpFilterConfig};
use crate::http::{HttpConfiguration, OfAnotherModule, RouteConfiguration, Step};

const CONTINUE: c_int = 0;
const STOP_ITERATION: c_int = 1;

/// The configuration of a route, as the host stores it.
#[repr(C)]
struct Route {
    maker: *const u8,
    configuration: RouteConfiguration,
}

const _: () = assert!(offset_of!(Route, maker) == 0);

/// The address of this static identifies this module among all loaded modules.
static MAKER: u8 = 0;

/// Returns the configuration of the request's route, or `None` if it has none.
fn route<'h>(host: &HttpFilter<'h>) -> Result<Option<&'h RouteConfiguration>, OfAnotherModule> {
    let route = host.route().cast::<Route>();
    if !route.is_aligned() {
        return Err(OfAnotherModule);
    }
    // SAFETY: the host returns the pointer that a `per_route_config_new` returned, and keeps it during a hook. Every build of this
    // module puts this field first. If a different module made it, the pointer must point to eight readable bytes, which a module
    // that returns, for example, a small number does not guarantee. Only the operator can configure such a module on a route.
    let Some(maker) = (unsafe { route.cast::<*const u8>().as_ref() }) else { return Ok(None) };
    if *maker != &raw const MAKER {
        return Err(OfAnotherModule);
    }
    // SAFETY: this module has made it.
    Ok(unsafe { route.as_ref() }.map(|route| &route.configuration))
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    host: *mut c_void,
    name: Buffer<'_>,
    text: Buffer<'_>,
) -> *const c_void {
    let new = || {
        // SAFETY: the host lends both buffers during this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        // SAFETY: the host passes it to this hook.
        let mut host = unsafe { HttpFilterConfig::new(host) };
        HttpConfiguration::new(&mut host, name, text)
            .map_or(null(), |new| Box::into_raw(Box::new(new)).cast_const().cast())
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *mut c_void) {
    // SAFETY: the host passes, once, the pointer that `config_new` returned, after the last filter of it was destroyed.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<HttpConfiguration>()) }), || ());
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    name: Buffer<'_>,
    text: Buffer<'_>,
) -> *const c_void {
    let new = || {
        // SAFETY: the host lends both buffers during this hook.
        let (name, text) = unsafe { (name.get(), text.get()) };
        RouteConfiguration::new(name, text).map_or(null(), |configuration| {
            let route = Route { maker: &raw const MAKER, configuration };
            Box::into_raw(Box::new(route)).cast_const().cast()
        })
    };
    guarded(new, null)
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(config: *mut c_void) {
    // SAFETY: the host passes, once, the pointer that `per_route_config_new` returned, when no request uses it.
    guarded(|| drop(unsafe { Box::from_raw(config.cast::<Route>()) }), || ());
}

/// Returns the configuration, because a request has no state of its own. The host keeps the configuration as long as the filter.
#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _host: *mut c_void,
) -> *const c_void {
    config
}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_destroy(_filter: *const c_void) {}

#[unsafe(no_mangle)]
pub(super) extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    host: *mut c_void,
    filter: *const c_void,
    _end_of_stream: bool,
) -> c_int {
    // SAFETY: the host passes it to this hook.
    let host = || unsafe { HttpFilter::new(host) };
    let decide = || {
        // SAFETY: this is the pointer that `config_new` and `filter_new` returned. The host destroys it after the filter.
        let configuration =
            unsafe { NonNull::new(filter.cast_mut().cast::<HttpConfiguration>()).map(|it| it.as_ref()) };
        let mut host = host();
        match configuration {
            Some(configuration) => {
                let route = route(&host);
                configuration.on_request(&mut host, route)
            }
            None => crate::http::fail(&mut host),
        }
    };
    match guarded(decide, || crate::http::fail(&mut host())) {
        Step::Continue => CONTINUE,
        Step::Responded => STOP_ITERATION,
    }
}

/// Defines required hooks that continue.
macro_rules! passing {
    ($($name:ident($($argument:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $argument),*) -> c_int {
                CONTINUE
            }
        )*
    };
}

passing! {
    envoy_dynamic_module_on_http_filter_request_body(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_request_trailers(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_response_headers(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_response_body(*mut c_void, *const c_void, bool);
    envoy_dynamic_module_on_http_filter_response_trailers(*mut c_void, *const c_void);
}

/// Defines required hooks for events that this module ignores.
macro_rules! ignored {
    ($($name:ident($($argument:ty),*);)*) => {
        $(
            #[unsafe(no_mangle)]
            extern "C" fn $name($(_: $argument),*) {}
        )*
    };
}

ignored! {
    envoy_dynamic_module_on_http_filter_stream_complete(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_http_callout_done(
        *mut c_void, *const c_void, u64, c_int, *const c_void, usize, *const c_void, usize
    );
    envoy_dynamic_module_on_http_filter_http_stream_headers(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data(*mut c_void, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers(*mut c_void, *const c_void, u64, *const c_void, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset(*mut c_void, *const c_void, u64, c_int);
    envoy_dynamic_module_on_http_filter_scheduled(*mut c_void, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark(*mut c_void, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark(*mut c_void, *const c_void);
}
