// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAnchorLog} from "../interfaces/IAnchorLog.sol";
import {AnchorLog} from "../src/AnchorLog.sol";
import {Checked} from "./Checked.sol";

contract AnchorLogTest is Checked {
    bytes32 private constant KEY = keccak256("log key");
    address private constant OWNER = address(0xa11ce);
    address private constant ANCHORER = address(0xb0b);
    address private constant STRANGER = address(0xbad);

    AnchorLog private its;
    bytes32 private log;

    function setUp() public {
        vm.roll(1000);
        vm.warp(1_700_000_000);
        its = new AnchorLog();
        vm.prank(OWNER);
        log = its.open(KEY, ANCHORER);
    }

    function none() private pure returns (uint64[] memory) {
        return new uint64[](0);
    }

    function one(uint256 blockNumber) private pure returns (uint64[] memory beacons) {
        beacons = new uint64[](1);
        beacons[0] = uint64(blockNumber);
    }

    function size() private view returns (uint64 entries) {
        (,, entries) = its.head(log);
    }

    function test_the_id_of_a_log_is_made_of_its_owner_and_key() public view {
        same("id", log, keccak256(abi.encode(OWNER, KEY)));
        (address owner, address anchorer, uint64 entries) = its.head(log);
        same("owner", owner, OWNER);
        same("anchorer", anchorer, ANCHORER);
        same("size", entries, 0);
    }

    function test_opening_tells_owner_key_and_anchorer() public {
        bytes32 key = keccak256("another key");
        vm.expectEmit(address(its));
        emit IAnchorLog.LogOpened(keccak256(abi.encode(STRANGER, key)), STRANGER, key, ANCHORER);
        vm.prank(STRANGER);
        its.open(key, ANCHORER);
    }

    function test_a_stranger_cannot_squat_a_log() public {
        vm.prank(STRANGER);
        bytes32 other = its.open(KEY, STRANGER);
        holds("another log", other != log);
        (address owner,,) = its.head(log);
        same("owner", owner, OWNER);
    }

    function test_a_log_is_opened_once() public {
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.AlreadyOpen.selector, log));
        vm.prank(OWNER);
        its.open(KEY, STRANGER);
    }

    function test_a_log_has_an_anchorer() public {
        bytes32 key = keccak256("no anchorer");
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.ZeroAnchorer.selector, keccak256(abi.encode(OWNER, key))));
        vm.prank(OWNER);
        its.open(key, address(0));
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.ZeroAnchorer.selector, log));
        vm.prank(OWNER);
        its.setAnchorer(log, address(0));
    }

    function test_the_owner_replaces_the_anchorer() public {
        vm.expectEmit(address(its));
        emit IAnchorLog.AnchorerChanged(log, STRANGER);
        vm.prank(OWNER);
        its.setAnchorer(log, STRANGER);
        vm.prank(STRANGER);
        its.anchor(log, 0, 1, bytes32(0), none());
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotAnchorer.selector, log, ANCHORER));
        vm.prank(ANCHORER);
        its.anchor(log, 1, 2, bytes32(0), none());
    }

    function testFuzz_only_the_owner_replaces_the_anchorer(address caller) public {
        vm.assume(caller != OWNER);
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotOwner.selector, log, caller));
        vm.prank(caller);
        its.setAnchorer(log, caller);
    }

    function testFuzz_only_the_anchorer_anchors(address caller, uint64 newSize, bytes32 root) public {
        vm.assume(caller != ANCHORER);
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotAnchorer.selector, log, caller));
        vm.prank(caller);
        its.anchor(log, 0, newSize, root, none());
    }

    function testFuzz_an_unopened_log_takes_nothing(address caller, bytes32 other) public {
        vm.assume(other != log && caller != address(0));
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotAnchorer.selector, other, caller));
        vm.prank(caller);
        its.anchor(other, 0, 1, bytes32(0), none());
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotOwner.selector, other, caller));
        vm.prank(caller);
        its.setAnchorer(other, caller);
    }

    function testFuzz_an_anchor_stands_on_the_head(uint64 head, uint64 oldSize, uint64 newSize) public {
        vm.assume(head > 0 && oldSize != head);
        vm.prank(ANCHORER);
        its.anchor(log, 0, head, bytes32(0), none());
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotTheHead.selector, log, head, oldSize));
        vm.prank(ANCHORER);
        its.anchor(log, oldSize, newSize, bytes32(0), none());
    }

    function testFuzz_an_anchor_grows_the_log(uint64 head, uint64 newSize) public {
        vm.assume(head > 0 && newSize <= head);
        vm.prank(ANCHORER);
        its.anchor(log, 0, head, bytes32(0), none());
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotGrowing.selector, head, newSize));
        vm.prank(ANCHORER);
        its.anchor(log, head, newSize, bytes32(0), none());
    }

    /// The formula of FORMAT.md §5, written a second time without assembly, for any sizes, root, times and beacons.
    function testFuzz_the_commitment_is_the_formula(
        uint64 oldSize,
        uint64 newSize,
        bytes32 root,
        uint40 blockNumber,
        uint48 time,
        uint64[] calldata beacons
    ) public {
        vm.assume(oldSize < newSize);
        if (oldSize > 0) {
            vm.prank(ANCHORER);
            its.anchor(log, 0, oldSize, bytes32(0), none());
        }
        vm.roll(blockNumber);
        vm.warp(time);
        bytes memory looked;
        for (uint256 i = 0; i < beacons.length; ++i) {
            looked = abi.encodePacked(looked, beacons[i], blockhash(beacons[i]));
        }
        vm.expectEmit(address(its));
        emit IAnchorLog.Anchored(log, oldSize, newSize, root, looked);
        vm.prank(ANCHORER);
        its.anchor(log, oldSize, newSize, root, beacons);

        bytes32 wanted = keccak256(abi.encode(root, uint256(oldSize), uint256(blockNumber), uint256(time), keccak256(looked)));
        same("commitment", its.anchors(log, newSize), wanted);
        same("stored word", vm.load(address(its), slotOf(bytes32(uint256(newSize)), slotOf(log, bytes32(uint256(1))))), wanted);
        same("size", size(), newSize);
    }

    function testFuzz_a_beacon_is_one_of_the_last_256_blocks(uint64 beacon) public {
        if (beacon % 2 == 0) beacon = uint64(740 + beacon % 264); // half of the runs close to the borders
        bool recent = beacon < 1000 && beacon >= 1000 - 256;
        holds("hash", (blockhash(beacon) != 0) == recent);
        vm.prank(ANCHORER);
        its.anchor(log, 0, 1, bytes32(0), one(beacon));
        bytes32 looked = keccak256(abi.encodePacked(beacon, recent ? blockhash(beacon) : bytes32(0)));
        same("commitment", its.anchors(log, 1), keccak256(abi.encode(bytes32(0), 0, block.number, block.timestamp, looked)));
    }

    function test_the_head_is_in_slot_0_and_shares_a_word_with_the_anchorer() public {
        vm.prank(ANCHORER);
        its.anchor(log, 0, 7, bytes32(0), none());
        bytes32 first = slotOf(log, bytes32(0));
        same("word 0", uint256(vm.load(address(its), first)), (7 << 160) | uint256(uint160(ANCHORER)));
        same("word 1", vm.load(address(its), bytes32(uint256(first) + 1)), bytes32(uint256(uint160(OWNER))));
    }

    function testFuzz_published_leaves_are_as_many_as_the_entries(uint8 entries, uint8 given) public {
        vm.assume(entries > 0);
        bytes32[] memory leaves = new bytes32[](given);
        if (entries != given) {
            vm.expectRevert(abi.encodeWithSelector(IAnchorLog.WrongLeafCount.selector, uint256(entries), uint256(given)));
        }
        vm.prank(ANCHORER);
        its.anchorWithLeaves(log, 0, entries, bytes32(0), none(), leaves);
        same("size", size(), entries == given ? entries : 0);
    }

    function test_published_leaves_change_nothing_else() public {
        vm.prank(ANCHORER);
        its.anchorWithLeaves(log, 0, 2, keccak256("root"), one(999), new bytes32[](2));
        vm.prank(OWNER);
        bytes32 other = its.open("other", ANCHORER);
        vm.prank(ANCHORER);
        its.anchor(other, 0, 2, keccak256("root"), one(999));
        same("commitment", its.anchors(log, 2), its.anchors(other, 2));
    }

    function testFuzz_only_the_anchorer_publishes_leaves(address caller) public {
        vm.assume(caller != ANCHORER);
        vm.expectRevert(abi.encodeWithSelector(IAnchorLog.NotAnchorer.selector, log, caller));
        vm.prank(caller);
        its.anchorWithLeaves(log, 0, 1, bytes32(0), none(), new bytes32[](1));
    }

    /// At batch 1,024 an image then costs at most 60 gas. What a transaction costs is its base, its calldata and the call.
    function test_gas_of_an_anchor_with_one_beacon_is_at_most_58000() public {
        vm.prank(ANCHORER);
        its.anchor(log, 0, 1024, keccak256("first"), one(990));
        bytes memory call = abi.encodeCall(IAnchorLog.anchor, (log, 1024, 2048, keccak256("second"), one(999)));
        uint256 gas = 21_000;
        for (uint256 i = 0; i < call.length; ++i) {
            gas += call[i] == 0 ? 4 : 16;
        }
        vm.cool(address(its));
        vm.prank(ANCHORER);
        uint256 before = gasleft();
        (bool done,) = address(its).call(call);
        gas += before - gasleft();
        holds("anchored", done);
        emit log_named_uint("gas of an anchor with one beacon", gas);
        emit log_named_uint("gas an image at batch 1,024 (rounded up)", (gas + 1023) / 1024);
        holds("at most 58,000 gas", gas <= 58_000);
    }
}
