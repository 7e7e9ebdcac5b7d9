// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {IAnchorLog} from "../interfaces/IAnchorLog.sol";
import {AnchorLog} from "../src/AnchorLog.sol";
import {Checked} from "./Checked.sol";

/// @notice One honest log among strangers who may call whatever they like, in any order.
contract Site is Checked {
    AnchorLog public immutable its;
    bytes32 public immutable log;
    bytes32 public constant KEY = keccak256("log key");
    address public constant OWNER = address(0xa11ce);

    address public anchorer = address(0xb0b);
    uint64[] public sizes;
    bytes32[] public commitments;
    uint256 public honestCallsReverted;
    uint256 public strangersWrote;

    constructor() {
        its = new AnchorLog();
        vm.prank(OWNER);
        log = its.open(KEY, anchorer);
        sizes.push(0);
        commitments.push(0);
    }

    function anchors() external view returns (uint256) {
        return sizes.length;
    }

    function passTime(uint16 blocks) external {
        vm.roll(block.number + blocks);
        vm.warp(block.timestamp + 12 * uint256(blocks));
    }

    function honestAnchor(uint16 entries, bytes32 root, uint64 beacon) external {
        uint64 oldSize = sizes[sizes.length - 1];
        uint64 newSize = oldSize + 1 + entries;
        uint64[] memory beacons = new uint64[](1);
        beacons[0] = beacon;
        bytes32 looked = keccak256(abi.encodePacked(beacon, blockhash(beacon)));
        vm.prank(anchorer);
        try its.anchor(log, oldSize, newSize, root, beacons) {
            sizes.push(newSize);
            commitments.push(keccak256(abi.encode(root, uint256(oldSize), block.number, block.timestamp, looked)));
        } catch {
            ++honestCallsReverted;
        }
    }

    function ownerChangesAnchorer(address next) external {
        if (next == address(0)) return;
        vm.prank(OWNER);
        try its.setAnchorer(log, next) {
            anchorer = next;
        } catch {
            ++honestCallsReverted;
        }
    }

    function strangerAnchors(address caller, uint64 oldSize, uint64 newSize, bytes32 root, bool onTheHead, bool leaves) external {
        if (caller == anchorer) return;
        if (onTheHead) oldSize = sizes[sizes.length - 1];
        if (leaves && oldSize < type(uint64).max) newSize = oldSize + 1;
        vm.prank(caller);
        if (leaves) {
            try its.anchorWithLeaves(log, oldSize, newSize, root, new uint64[](0), new bytes32[](1)) {
                ++strangersWrote;
            } catch {}
        } else {
            try its.anchor(log, oldSize, newSize, root, new uint64[](0)) {
                ++strangersWrote;
            } catch {}
        }
    }

    function strangerChangesAnchorer(address caller, address next) external {
        if (caller == OWNER) return;
        vm.prank(caller);
        try its.setAnchorer(log, next) {
            ++strangersWrote;
        } catch {}
    }

    /// The stranger's own log is the stranger's own business; it is anchored in too.
    function strangerOpens(address caller, address next, bool sameKey, bytes32 root) external {
        if (caller == OWNER || next == address(0)) return;
        vm.prank(caller);
        try its.open(sameKey ? KEY : root, next) returns (bytes32 theirs) {
            if (theirs == log) ++strangersWrote;
            vm.prank(next);
            its.anchor(theirs, 0, type(uint64).max, root, new uint64[](0));
        } catch {}
    }

    function strangerCallsAnything(address caller, bytes calldata input) external {
        if (caller == OWNER || caller == anchorer) return;
        vm.prank(caller);
        (bool done,) = address(its).call(input);
        done; // whatever it answered, the invariants look at what is stored
    }
}

contract AnchorLogInvariants is Checked {
    Site private site;

    function setUp() public {
        vm.roll(1000);
        vm.warp(1_700_000_000);
        site = new Site();
    }

    function targetContracts() external view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(site);
    }

    function invariant_only_the_owner_and_the_anchorer_write_the_head() public view {
        (address owner, address anchorer, uint64 size) = site.its().head(site.log());
        same("owner", owner, site.OWNER());
        same("anchorer", anchorer, site.anchorer());
        same("size", size, site.sizes(site.anchors() - 1));
        same("writes by strangers", site.strangersWrote(), 0);
    }

    function invariant_nothing_a_stranger_sends_makes_an_honest_call_revert() public view {
        same("honest calls reverted", site.honestCallsReverted(), 0);
    }

    function invariant_the_head_never_shrinks_and_no_commitment_changes() public view {
        uint64 before = 0;
        for (uint256 i = 1; i < site.anchors(); ++i) {
            holds("grows", site.sizes(i) > before);
            before = site.sizes(i);
            same("commitment", site.its().anchors(site.log(), before), site.commitments(i));
        }
    }
}
