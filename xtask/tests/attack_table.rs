//! The table of attacks names tests that exist.

use std::fs;

use firmware_image::sim::figures;

#[test]
fn each_attack_in_the_table_names_tests_that_exist() {
    let root = xtask::run::root();
    let page = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let (_, table) = page.split_once("| attack | test |").unwrap();
    let mut tests = 0;
    for line in table.lines().take_while(|line| line.is_empty() || line.starts_with('|')) {
        let Some(shown) = line.split('|').nth(2) else { continue };
        let mut file = None;
        for code in shown.split('`').skip(1).step_by(2) {
            if code.ends_with(".rs") {
                file =
                    Some((code, fs::read_to_string(root.join(code)).unwrap_or_else(|error| panic!("{code}: {error}"))));
                continue;
            }
            let (name, text) = file.as_ref().unwrap_or_else(|| panic!("{code} stands in no file"));
            let begin = format!("#[test]\nfn {code}()");
            let indented = format!("#[test]\n    fn {code}()");
            assert!(text.contains(&begin) || text.contains(&indented), "{name} has no test {code}");
            tests += 1;
        }
    }
    assert!(tests > 40, "{tests} were found");
    // Each of them fails where its attack succeeds.
    figures::count(figures::ATTACKS, "the table of attacks", tests, 0);
}
