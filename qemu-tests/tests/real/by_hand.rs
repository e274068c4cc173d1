//! Recovery by hand as a person would do it: the names of what is copied, and of where, and of what is started, come from
//! `READ ME FIRST.html` as it stands on the device.

use crate::ward::{UPDATER, Ward};
use qemu_tests::guest::USER_ID;
use qemu_tests::stick::Profile;
use qemu_tests::world::OLD;

/// What the page tells its reader.
struct Page {
    html: String,
    /// "The repair drive … Its name on the screen is"
    repair_drive: String,
    /// "Your drive … Its name is"
    your_drive: String,
    /// Step 2: "click the first part, called"
    partition: String,
    /// Step 3: "Open the repair drive and click once on"
    copied: String,
    /// How to start: "On the repair drive, click"
    launcher: String,
}

impl Page {
    /// Reads the page on the plugged device.
    fn read(ward: &mut Ward) -> Self {
        let html = ward.machine.sh("cat '/media/virtual/READ ME FIRST.html'");
        // What stands in <code> next after these words.
        let named = |words: &str| {
            let after = html.split_once(words).unwrap_or_else(|| panic!("the page does not say {words:?}:\n{html}")).1;
            let code = after.split_once("<code>").and_then(|(_, code)| code.split_once("</code>")).expect("a name");
            code.0.to_owned()
        };
        Self {
            repair_drive: named("Its name on the screen is"),
            your_drive: named("<strong>Your drive</strong> is the other one. Its name is"),
            partition: named("In the picture, click the first\npart, called"),
            copied: named("Open the repair drive and click once on"),
            launcher: named("On the repair drive, click"),
            html,
        }
    }

    fn says(&self, words: &str) {
        let plain = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(plain(&self.html).contains(&plain(words)), "the page does not say {words:?}:\n{}", self.html);
    }
}

/// Plugs the device in as a desktop shows it: both drives open, nothing started.
fn open_both_drives(ward: &mut Ward) {
    ward.plug_held();
    let node = ward.stick.profile.virtual_node();
    ward.machine.sh(&format!("mkdir -p /media/virtual /media/free; mount -o ro,nosuid,nodev {node} /media/virtual"));
    open_your_drive(ward);
}

fn open_your_drive(ward: &mut Ward) {
    let options = format!("uid={USER_ID},gid={USER_ID},nosuid,nodev,utf8=1,flush,showexec");
    ward.machine.sh(&format!("mount -o {options} /dev/sda1 /media/free"));
}

fn close_both_drives(ward: &mut Ward) {
    ward.machine.sh("umount /media/virtual /media/free; sync");
    ward.unplug_held();
}

/// What the person at the computer does.
fn by_hand(ward: &mut Ward, command: &str) -> String {
    ward.machine.long(&format!(
        "cd /home/anna; setpriv --reuid {USER_ID} --regid {USER_ID} --clear-groups env HOME=/home/anna {command}"
    ))
}

/// Formats the free zone as step 2 says, and wipes the hidden zone behind it, which no page tells anybody to do.
fn wipe(ward: &mut Ward, page: &Page) {
    let hidden = ward.stick.profile.hidden_node();
    let partition = &page.partition;
    ward.machine.long(&format!(
        "umount /media/free; mkfs.vfat -F 32 /dev/disk/by-partlabel/{partition} && dd if=/dev/zero of={hidden} bs=1M 2>/dev/null; \
         sync; udevadm settle"
    ));
    open_your_drive(ward);
    assert_eq!(ward.machine.sh("ls -A /media/free"), "", "a drive that was formatted is empty");
}

/// Steps 3 and 4, and what is whole afterwards; first where nothing was ever installed, then where the device starts by itself.
fn four_steps(profile: Profile) {
    let Some(mut ward) = Ward::unprepared(profile, &[]) else { return };
    open_both_drives(&mut ward);
    let page = Page::read(&mut ward);
    let (repair, yours) = (&page.repair_drive, &page.your_drive);
    let label = |name: &str| format!("/dev/disk/by-label/{}", name.replace(' ', "\\x20"));
    let node = ward.stick.profile.virtual_node();
    ward.machine.sh(&format!("[ \"$(readlink -f '{}')\" = {node} ]", label(repair)));
    ward.machine.sh(&format!("[ \"$(readlink -f '{}')\" = /dev/sda1 ]", label(yours)));
    page.says("Open your drive. Go into no folder on it.");
    page.says("type <kbd>sh</kbd> and one space, drag <code>autorun.sh</code>");
    page.says("<strong>The computer must be connected to the internet</strong>");

    wipe(&mut ward, &page);
    let (copied, launcher) = (page.copied.clone(), page.launcher.clone());
    let copy = format!("cp /media/virtual/{copied} /media/free/");
    by_hand(&mut ward, &copy);
    let said = by_hand(&mut ward, &format!("sh /media/virtual/{launcher}"));
    assert!(said.contains(&format!("CLIENT {OLD} says hello")), "{said}");
    close_both_drives(&mut ward);
    ward.has_its_updater().and_then(|()| ward.has_its_client()).unwrap_or_else(|error| panic!("{error:#}\n{said}"));

    // On a computer that was prepared, the hidden zone is in reach, and comes back from what the free zone has.
    ward.prepare_host();
    let session = ward.start();
    session.expect(&format!("CLIENT {OLD} says hello"));
    ward.is_whole().unwrap_or_else(|error| panic!("{error:#}\n{}", session.said));

    // The same again, and the start is plugging it in.
    open_both_drives(&mut ward);
    wipe(&mut ward, &page);
    by_hand(&mut ward, &copy);
    close_both_drives(&mut ward);
    let session = ward.start();
    session.expect(&format!("CLIENT {OLD} says hello"));
    ward.is_whole().unwrap_or_else(|error| panic!("{error:#}\n{}", session.said));

    // Nothing is copied at all: the CD's tail, or the plain copy of a stick, comes back by itself.
    open_both_drives(&mut ward);
    wipe(&mut ward, &page);
    close_both_drives(&mut ward);
    let session = ward.start();
    let from = match profile {
        Profile::Stick => "from the copy in the virtual zone",
        Profile::Dual => "from the factory backup on the CD",
    };
    session.expect(from).expect(&format!("CLIENT {OLD} says hello"));
    ward.is_whole().unwrap_or_else(|error| panic!("{error:#}\n{}", session.said));
}

/// The virtual zone carries the release, and no server is there.
fn without_the_internet(profile: Profile) {
    let Some(mut ward) = Ward::unprepared(profile, &["--offline-source"]) else { return };
    ward.stick.server.stop();
    open_both_drives(&mut ward);
    let page = Page::read(&mut ward);
    page.says("It comes back without the internet, as it left the factory");
    page.says(&format!(" {OLD} and brings it back from there"));
    wipe(&mut ward, &page);
    by_hand(&mut ward, &format!("cp /media/virtual/{} /media/free/", page.copied));
    let said = by_hand(&mut ward, &format!("sh /media/virtual/{}", page.launcher));
    assert!(said.contains(&format!("CLIENT {OLD} says hello")), "{said}");
    close_both_drives(&mut ward);
    ward.has_its_updater().and_then(|()| ward.has_its_client()).unwrap_or_else(|error| panic!("{error:#}\n{said}"));
    assert!(ward.read(UPDATER).is_some());
}

#[test]
fn on_a_stick_the_four_steps_of_the_page_bring_all_back() {
    four_steps(Profile::Stick);
}

#[test]
fn on_a_dual_device_the_four_steps_of_the_page_bring_all_back() {
    four_steps(Profile::Dual);
}

#[test]
fn on_a_stick_with_an_offline_source_they_do_so_without_the_internet() {
    without_the_internet(Profile::Stick);
}

#[test]
fn on_a_dual_device_with_an_offline_source_they_do_so_without_the_internet() {
    without_the_internet(Profile::Dual);
}
