"use strict";

// Tables are sorted by the buttons in their heads: numbers from the largest, text from A,
// what is missing stays last. `aria-sort` and a status line tell screen readers.
const status = document.getElementById("status");
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button")?.addEventListener("click", () => {
    const now = head.getAttribute("aria-sort"), numeric = head.dataset.type === "number";
    const first = numeric ? "descending" : "ascending";
    const order = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    const key = row => row.cells[column].dataset.sort ?? "";
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
    });
    table.tBodies[0].append(...rows);
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    status.textContent = "Sorted by " + head.textContent.trim() + ", " + order;
  }));
}

// A box that scrolls can be reached by keyboard; one that does not is no stop on the way.
for (const box of document.querySelectorAll(".box, .picture")) {
  const scrolls = () => box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
  const fit = () => scrolls() ? box.setAttribute("tabindex", "0") : box.removeAttribute("tabindex");
  new ResizeObserver(fit).observe(box);
}

// The list of contents marks the section in view.
const links = new Map([...document.querySelectorAll("nav a")].map(a => [a.hash.slice(1), a]));
const sections = [...document.querySelectorAll(".rest > section")];
let waiting = false;
const mark = (id, link, seen) => {
  if (id !== seen?.id) return link.removeAttribute("aria-current");
  if (link.hasAttribute("aria-current")) return;
  link.setAttribute("aria-current", "true");
  const bar = link.closest("nav");
  bar.scrollLeft += link.getBoundingClientRect().left - bar.clientWidth / 2 + link.offsetWidth / 2;
};
const follow = () => {
  waiting = false;
  const end = innerHeight + scrollY >= document.documentElement.scrollHeight - 4;
  const passed = sections.filter(s => s.getBoundingClientRect().top < innerHeight * .35);
  const seen = end ? sections.at(-1) : passed.at(-1);
  for (const [id, link] of links) mark(id, link, seen);
};
const soon = () => {
  if (!waiting) requestAnimationFrame(follow);
  waiting = true;
};
addEventListener("scroll", soon, { passive: true });
addEventListener("resize", soon);
follow();

// Nothing stays folded on paper, nor where a link leads to.
const unfold = () => {
  for (let e = document.querySelector(":target"); e; e = e.parentElement)
    if (e.tagName === "DETAILS") e.open = true;
};
addEventListener("hashchange", unfold);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach(d => d.open = true));
