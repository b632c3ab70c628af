// Let the columns of tables be sorted by their headings, by click and by keyboard.
"use strict";
function value(row, column) {
  const text = row.cells[column].textContent.trim();
  const number = parseFloat(text.replace("−", "-").replace(/,(?=\d{3})/g, ""));
  return { text, number, isEmpty: text === "" || text === "–" || /^\d+ of \d+ /.test(text) };
}
function compare(a, b, sign) {
  if (a.isEmpty || b.isEmpty) return a.isEmpty - b.isEmpty; // last in both directions
  if (isNaN(a.number) || isNaN(b.number)) return sign * a.text.localeCompare(b.text, "en");
  return sign * (a.number - b.number);
}
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
      headings.forEach((each) => each.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", order);
      const sign = order === "ascending" ? 1 : -1;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => compare(value(a, column), value(b, column), sign));
      table.tBodies[0].append(...rows);
    });
  });
}
