//! The command on real drivers.

mod support;

use std::path::{Path, PathBuf};

use camlease_rig::foreign::Stream;
use camlease_rig::vivid::{self, VividOptions};
use camlease_rig::{Webcam, WebcamOptions, alone, require_guest, v4l2_ctl_streams};
use support::{folder, json, json_error, run};

fn cameras(devices: u32) -> Vec<PathBuf> {
    vivid::load(VividOptions { first_number: Some(40), devices, ..VividOptions::default() })
}

fn name(camera: &Path) -> &str {
    camera.to_str().unwrap()
}

#[test]
fn cameras_are_listed_with_formats_and_holders() {
    let _alone = alone();
    require_guest();
    let camera = cameras(1).remove(0);
    let entry = || {
        let (code, mut value) = json(&["list"]);
        assert_eq!(code, 0);
        let all = value["cameras"].as_array_mut().unwrap();
        all.iter_mut().find(|entry| entry["uri"] == name(&camera)).expect("vivid is listed").take()
    };
    let free = entry();
    assert_eq!((&free["state"], &free["driver"]), (&"free".into(), &"vivid".into()));
    let size = |format: &serde_json::Value| (format["width"]["most"].as_u64(), format["height"]["most"].as_u64());
    let formats = free["formats"].as_array().unwrap();
    let is_usual = |format: &serde_json::Value| format["fourcc"] == "YUYV" && size(format) == (Some(640), Some(360));
    assert!(formats.iter().any(is_usual), "{formats:?}");

    let stream = Stream::start(&camera);
    let held = entry();
    assert_eq!((&held["state"], &held["holders"][0]["pid"]), (&"streaming".into(), &stream.process_id().into()));
    assert!(!held["formats"].as_array().unwrap().is_empty(), "formats are told whoever has it");
    let (code, out, _) = run(&["who", "40"]);
    assert_eq!(code, 0);
    assert!(out.contains(&format!("v4l2-ctl (pid {}, user root, streaming)", stream.process_id())), "{out}");
    let (code, error) = json_error(&["wait", "video40", "--timeout", "300ms"]);
    assert_eq!((code, &error["kind"]), (6, &"timeout".into()));
    stream.kill();
    assert_eq!(run(&["wait", "video40", "--timeout", "10s"]).0, 0);
}

#[test]
fn pictures_and_clips_come_from_real_drivers() {
    let _alone = alone();
    require_guest();
    let folder = folder("rig");
    for multiplanar in [false, true] {
        let options = VividOptions { first_number: Some(40), multiplanar, ..VividOptions::default() };
        let camera = vivid::load(options).remove(0);
        for file in ["a.png", "a.jpg", "a.y4m", "a.avi", "a.raw"] {
            let path = folder.join(file);
            let arguments =
                ["capture", name(&camera), "-n", "2", "-o", path.to_str().unwrap(), "--size", "640x360", "--force"];
            let (code, value) = json(&arguments);
            assert_eq!((code, &value["frames"], &value["width"]), (0, &2.into(), &640.into()), "{file}: {value}");
            for written in value["files"].as_array().unwrap() {
                assert!(std::fs::metadata(written.as_str().unwrap()).unwrap().len() > 1000, "{written}");
            }
        }
        let path = folder.join("nv12.png");
        let arguments = ["capture", name(&camera), "--format", "NV12", "-o", path.to_str().unwrap(), "--force"];
        assert_eq!(json(&arguments).1["fourcc"], "NV12");
    }
}

#[test]
fn a_webcam_gives_its_own_jpegs() {
    let _alone = alone();
    require_guest();
    let webcam = Webcam::plug(WebcamOptions { serial: "CLI1".into(), ..WebcamOptions::default() });
    let path = folder("rig-webcam").join("a.jpg");
    let (code, value) =
        json(&["capture", name(&webcam.node()), "--format", "MJPG", "-o", path.to_str().unwrap(), "--timeout", "20s"]);
    assert_eq!((code, &value["fourcc"]), (0, &"MJPG".into()), "{value}");
    let bytes = std::fs::read(&path).unwrap();
    assert!(zune_jpeg::JpegDecoder::new(zune_jpeg::zune_core::bytestream::ZCursor::new(bytes)).decode().is_ok());
}

#[test]
fn all_cameras_are_got_back() {
    let _alone = alone();
    require_guest();
    let cameras = cameras(2);
    let streams: Vec<_> = cameras.iter().map(|camera| Stream::start(camera)).collect();
    let (code, value) = json(&["release", "--all"]);
    assert_eq!((code, &value["dry_run"]), (0, &true.into()), "{value}");
    streams.iter().for_each(|stream| assert!(support::lives(stream.process_id() as i32)));
    let (code, value) = json(&["release", "--all", "--auto", "--grace", "5s"]);
    assert_eq!(code, 0, "{value}");
    for (camera, stream) in cameras.iter().zip(&streams) {
        let told = value["cameras"].as_array().unwrap().iter().find(|told| told["camera"] == name(camera)).unwrap();
        assert_eq!((&told["free"], &told["holders"][0]["pid"]), (&true.into(), &stream.process_id().into()));
        assert_eq!(v4l2_ctl_streams(camera, 2), Ok(()));
    }
    drop(streams);
    let (code, out, _) = run(&["release", "--all", "--auto"]);
    assert_eq!((code, out.as_str()), (0, "nobody has a camera of this machine\n"));
}

#[test]
fn what_a_failed_command_left_streaming_is_released() {
    let _alone = alone();
    require_guest();
    let camera = cameras(1).remove(0);
    let script = format!(
        "v4l2-ctl -d {0} --stream-mmap --stream-to=/dev/null >/dev/null 2>&1 & \
         while ! {1} who {0} | grep -q streaming; do sleep 0.2; done; exit 3",
        name(&camera),
        env!("CARGO_BIN_EXE_camlease")
    );
    let arguments = ["run", "-c", name(&camera), "--retries", "0", "--grace", "10s", "--", "sh", "-c", &script];
    let (code, _, err) = run(&arguments);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("it left v4l2-ctl"), "{err}");
    assert_eq!(v4l2_ctl_streams(&camera, 2), Ok(()));
    assert_eq!(run(&["wait", name(&camera), "--timeout", "1s"]).0, 0);
}
