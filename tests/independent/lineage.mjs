// Where an image comes from (step 10 of FORMAT.md §9), and what was done with it since (§10, replay of custody).
import { Invalid, hex, same } from "./bytes.mjs";
import { keepsContent, statementOf } from "./custody.mjs";
import { ITEMS, isImage, typeOf } from "./records.mjs";
import { OutOfReach, idOf, leavesOf, stand } from "./standing.mjs";

const MOST = 64;
const fail = (message) => { throw new Invalid("custody", message); };

/** The entry of a record: of several the last that has leaves, else the last. */
function entryOf(bundle, id, trust) {
  const all = bundle.entries.filter(({ record }) => same(idOf(record, trust), id));
  return all.findLast(({ leaves }) => leaves?.length) ?? all.at(-1);
}

/** Whether a record's time contradicts that of one that it follows. */
function isEarly(child, parent, { trust }) {
  const [, anchored] = child.standing.bracket, [made] = parent.standing.bracket;
  return parent.entry.record.claimed_time - child.entry.record.claimed_time > trust.tolerance
    || (anchored !== null && made !== null && anchored < made);
}

/** The items of which a receipt is false. */
function falseItems({ changed, allowed }, child, parent) {
  const [own, parents] = [child, parent].map(leavesOf);
  return ITEMS.filter((item, i) => (changed.includes(item) ? !allowed.includes(item) : !same(own[i], parents[i])));
}

/** 10: all records that lead to an image, its own first: [{entry, standing, false: items, isEarly, isNew: another content?}].
 * The first without parents is the image's first record. */
export function trace(view, bundle, entry, standing) {
  const known = new Map([[hex(standing.id), { entry, standing }]]), links = [];
  const walk = (link) => {
    if (links.includes(link)) return;
    links.push(link);
    const { record } = link.entry;
    Object.assign(link, { false: [], isEarly: false, isNew: false });
    if (typeOf(record) !== "CustodyRecord") return;
    const parents = record.parents.map((id) => {
      if (known.has(hex(id))) return known.get(hex(id));
      if (known.size === MOST) fail("too many records");
      const parent = entryOf(bundle, id, view.trust);
      if (!parent || !isImage(parent.record)) fail("a parent is missing");
      const found = { entry: parent, standing: stand(view, bundle, parent) };
      known.set(hex(id), found);
      return found;
    });
    const statement = statementOf(record), [{ entry: first }] = parents;
    link.isNew = !same(first.record.content, record.content);
    if (link.isNew) link.false = falseItems(statement, link.entry, first);
    else if (first.record.profile !== record.profile) fail("another profile of the same content");
    link.isEarly = parents.some((parent) => isEarly(link, parent, view));
    parents.forEach(walk);
  };
  walk(known.get(hex(standing.id)));
  return links;
}

/** §10: the steps that follow an entry, in order: [action or type, finding or null]. */
export function replay(view, bundle, entry, standing) {
  const seen = new Set([hex(standing.id)]), steps = [];
  const add = (what, found) => steps.push([what, steps.length === MOST - 1 ? "gap" : found]);
  const order = ({ record, included }) => [included ? included.index : 1n << 64n, record.claimed_time];
  const follow = (before) => {
    const followers = new Map();
    for (const one of bundle.entries) {
      const type = typeOf(one.record), id = hex(idOf(one.record, view.trust));
      const named = type === "CustodyRecord" ? one.record.parents : type === "Approval" ? [one.record.content] : [];
      if (!seen.has(id) && named.some((parent) => same(parent, before.standing.id))) followers.set(id, one);
    }
    const receipts = [...followers.values()].filter(({ record }) => record.action === "received").length;
    const sorted = [...followers].sort(([, a], [, b]) => {
      const [x, y] = [order(a), order(b)], at = x[0] === y[0] ? 1 : 0;
      return x[at] < y[at] ? -1 : x[at] > y[at] ? 1 : 0;
    });
    for (const [id, one] of sorted) {
      if (steps.length === MOST) return;
      const { record } = one, isCustody = typeOf(record) === "CustodyRecord";
      if (seen.has(id) || (isCustody && !keepsContent(record.action) && !same(record.content, before.entry.record.content))) continue;
      seen.add(id);
      const step = { entry: one, standing: standingOf(view, bundle, one) };
      add(isCustody ? record.action : typeOf(record), finding(view, step, before, receipts));
      if (step.standing) follow(step);
    }
  };
  follow({ entry, standing });
  for (const one of bundle.entries) {
    const { record } = one;
    if (steps.length === MOST) break;
    if (typeOf(record) !== "CustodyRecord" || !same(record.content, entry.record.content)) continue;
    if (record.parents.length && record.parents.every((id) => entryOf(bundle, id, view.trust))) continue;
    const found = standingOf(view, bundle, one);
    add(record.action, !found || found.refused ? "role" : "gap");
  }
  return steps;
}

function standingOf(view, bundle, entry) {
  try {
    return stand(view, bundle, entry);
  } catch (error) {
    if (error instanceof Invalid || error instanceof OutOfReach) return null;
    throw error;
  }
}

function finding(view, step, before, receipts) {
  const { standing, entry: { record } } = step, above = before.entry.record;
  if (!standing || standing.refused) return "role";
  if (standing.clock || isEarly(step, before, view)) return "time";
  if (typeOf(record) !== "CustodyRecord") return null;
  if (!same(record.content, above.content)) return "content";
  if (record.action === "received") {
    if (above.action !== "transferred") return "gap";
    const to = stated(above)?.to;
    if (receipts > 1 || !to || Buffer.compare(Buffer.from(to, "base64url"), record.key)) return "fork";
  }
  return stated(record) ? null : "content";
}

function stated(record) {
  try { return statementOf(record); } catch (error) { if (error instanceof Invalid) return null; throw error; }
}
