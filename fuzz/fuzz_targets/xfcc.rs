//! See `spiffe_authz_fuzz::targets::xfcc`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spiffe_authz_fuzz::targets::xfcc(data));
