//! Secrets and TLS keys of a configured target: for its subsystems, and for those that calls make.

use std::os::unix::fs::PermissionsExt;

use super::{HOST, Machine, OTHER, PREFIX, SUBSYSTEM, command, refusal, subsystem};

/// The example of the interchange form (NVMe/TCP Transport 1.1, "PSK Interchange Format").
const KEY: &str = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";

#[test]
fn hosts_prove_who_they_are_to_every_subsystem_and_encrypt_what_they_say() {
    let machine = Machine::new();
    for name in ["host", "controller", "stranger"] {
        let made = command(&["nvme", "key", "--output", &machine.text(name)]).output();
        assert!(made.expect("it ends").status.success());
    }
    let keys = machine.path("keys");
    std::fs::write(&keys, format!("{HOST} {KEY}\n{OTHER} {KEY}\n")).expect("written");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("set");
    let (key, host, controller) =
        (machine.text("keys"), machine.text("host"), machine.text("controller"));
    let service = machine.start(
        &(machine.head()
            + &format!(
                "[security]\nrequire-authentication = true\ntls-keys = '{key}'\n\
                 [[security.host]]\nnqn = '{HOST}'\nsecret-file = '{host}'\n\
                 controller-secret-file = '{controller}'\n"
            )
            + &subsystem(&machine, "")),
    );
    let volume = format!("{PREFIX}:pg");
    service.told(&["create", "pg", "--size", "16M"]);
    service.told(&["allow", "pg", HOST]);
    let port = service.port();
    let identify = |nqn: &str, name: &str, more: &str| {
        let uri = format!("nvme+tcp://127.0.0.1:{port}/{nqn}?hostnqn={name}{more}");
        command(&["nvme", "identify", &uri]).output().expect("it ends")
    };
    let secrets = format!("&dhchap-secret-file={host}&dhchap-ctrl-secret-file={controller}");
    let tls = format!("&pskfile={key}");
    for nqn in [SUBSYSTEM, volume.as_str()] {
        let output = identify(nqn, HOST, &(secrets.clone() + &tls));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        // Each of these is a way in that must be closed.
        refusal(&identify(nqn, HOST, &secrets), 1, "closed the connection");
        refusal(&identify(nqn, HOST, &tls), 1, "authenticat");
        let stranger = machine.text("stranger");
        let other = format!("{tls}&dhchap-secret-file={stranger}");
        refusal(&identify(nqn, HOST, &other), 1, "authentication");
        let other = format!("{tls}&dhchap-secret-file={host}&dhchap-ctrl-secret-file={stranger}");
        refusal(&identify(nqn, HOST, &other), 1, "authentication");
    }
    refusal(&identify(SUBSYSTEM, OTHER, &tls), 1, "Connect Invalid Host");
    let unknown = format!("{PREFIX}:unknown");
    refusal(&identify(SUBSYSTEM, &unknown, &(secrets + &tls)), 1, "no key for the host");
    service.stop();
}
