//! `auth_messages` under libFuzzer; built otherwise it says how to run it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = (forebay_fuzz::targets::nvme::auth_messages::TARGET.run)(input);
});

#[cfg(not(fuzzing))]
fn main() -> std::process::ExitCode {
    forebay_fuzz::runner::explain("auth_messages")
}
