//! The example does what it says.

use std::process::Command;

#[test]
fn two_processes_share_an_object() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["run", "--quiet", "--package", "heliostat-store", "--example", "two_processes"]);
    let output = cargo.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("the child read \"hello from the parent\""), "{text}");
    assert!(text.contains("the parent reads \"hello from the child\""), "{text}");
    assert!(text.contains("the child has ended: true"), "{text}");
}
