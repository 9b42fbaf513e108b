// Headings sort the rows below them; without scripts the table stands as it is, best genes first.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  table.classList.add("live");
  heads.forEach((head, column) => {
    head.tabIndex = 0;
    head.onkeydown = event => { if (event.key === "Enter") head.click(); };
    head.onclick = () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      const value = row => row.cells[column].dataset.v;
      const sorted = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const order = isNaN(x) || isNaN(y) ? y.localeCompare(x) : x - y;
        return rising ? order : -order;
      });
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      body.append(...sorted);
    };
  });
}
