//! The harness itself: without it, nothing that the other tests say is worth anything.

use std::time::Duration;

use qemu_tests::machine::Machine;

#[test]
fn a_machine_is_ready_in_about_a_second_and_runs_commands_with_status_and_output() {
    let Some(mut machine) = Machine::start() else { return };
    let first = machine.ready;
    assert_eq!(machine.sh("echo \"$((6 * 7))\"; id -u").trim(), "42\n0");
    let failed = machine.run_for("echo out; echo err >&2; exit 7", Duration::from_secs(60));
    assert_eq!((failed.status, failed.text.as_str()), (7, "out\nerr\n"));
    assert_eq!(machine.sh("cat /proc/1/comm").trim(), "systemd");
    assert_eq!(machine.sh("systemctl is-active systemd-udevd").trim(), "active");
    drop(machine);
    let Some(again) = Machine::start() else { return };
    println!("ready guest: {:.2} s, then {:.2} s", first.as_secs_f64(), again.ready.as_secs_f64());
}

#[test]
fn the_guest_reaches_a_server_on_this_machines_loopback_and_a_shared_directory() {
    let Some(mut machine) = Machine::start() else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let said = std::thread::spawn(move || {
        use std::io::Read as _;
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    });
    std::fs::write(machine.share().join("word"), "from outside").unwrap();
    machine.sh(&format!("busybox nc 10.0.2.2 {port} < /host/word"));
    assert_eq!(said.join().unwrap(), "from outside");
    machine.sh("echo from inside > /host/answer");
    assert_eq!(std::fs::read_to_string(machine.share().join("answer")).unwrap(), "from inside\n");
}

#[test]
fn what_takes_too_long_fails_the_test_and_ends_the_machine() {
    let Some(mut machine) = Machine::start() else { return };
    let late = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        machine.run_for("sleep 60", Duration::from_millis(300));
    }));
    let message = late.unwrap_err();
    let message = message.downcast_ref::<String>().unwrap();
    assert!(message.contains("sleep 60"), "{message}");
}
